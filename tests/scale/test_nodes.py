"""A cluster of two nodes, which are two sets of Ray's processes on this machine."""

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from layerguard.calibration import calibrate as calibrate_here
from layerguard.runtime import Bundle
from layerguard.runtime.server.config import Config, GuardConfig
from tests import tiny
from tests.calibration.synthetic import sentences, write_rows
from tests.scale.cluster import VARIABLES, free_port

pytest.importorskip("ray", reason="needs Ray: run `make ray`")
import ray
from ray import serve
from ray.cluster_utils import Cluster

from layerguard.scale.ray import Workers, application, calibrate

TWO = Workers(count=2)
_NODE: Mapping[str, Any] = {"num_cpus": 1, "object_store_memory": 150_000_000}


@pytest.fixture(scope="module", autouse=True)
def nodes() -> Iterator[None]:
    """Each has one processor."""
    os.environ.update(VARIABLES)
    cluster = Cluster(
        initialize_head=True,
        connect=True,
        head_node_args={**_NODE, "include_dashboard": False},
    )
    cluster.add_node(**_NODE)
    cluster.wait_for_nodes()
    yield
    ray.shutdown()
    cluster.shutdown()


def test_calibrate_on_two_nodes_gives_the_bundle_of_one_process(tmp_path: Path) -> None:
    """Rows and states travel between the nodes."""
    one = tiny.make_bundle(tmp_path / "one", {})
    other = Path(shutil.copytree(one, tmp_path / "other"))
    rows = write_rows(tmp_path / "rows.jsonl", [{"text": text} for text in sentences(600, seed=0)])
    calibrate_here(one, clean=rows, target_fpr=0.1, threads=1)
    calibrate(other, clean=rows, target_fpr=0.1, workers=TWO)
    assert Bundle.load(other).id == Bundle.load(one).id


def test_both_nodes_work() -> None:
    """A processor of each is needed for two workers."""

    def make() -> Any:
        def work(_: int) -> Iterator[str]:
            yield ray.get_runtime_context().get_node_id()

        return work

    assert len(set(TWO.results(make, range(40)))) == 2


def test_replicas_on_two_nodes_answer(tmp_path: Path) -> None:
    """A call is forwarded to a replica of the other node where need be."""
    bundle, port = tiny.make_bundle(tmp_path / "guard"), free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    config = Config({"main": str(bundle)}, guard=GuardConfig(threads=1))
    serve.run(application(config, num_replicas=2, ray_actor_options={"num_cpus": 1}))
    path = "/beta/litellm_basic_guardrail_api"
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        for i in range(24):
            for text in ("the garden", "the garden was quiet"):
                body = {"input_type": "response", "texts": [text], "litellm_call_id": f"call-{i}"}
                assert client.post(path, json=body).json() == {"action": "NONE"}
        metrics = client.get("/metrics").text.splitlines()
    serve.shutdown()
    open_streams = [
        float(line.rpartition(" ")[2])
        for line in metrics
        if line.startswith("layerguard_open_streams{")
    ]
    assert sum(open_streams) == 24  # each call has one answer, on one of the replicas
    assert len(open_streams) == 2
    assert min(open_streams) > 0
