"""``config.pbtxt`` against Triton's own message, from the package tritonclient.

The package is installed into an environment of its own, as `make gateways` does; where it cannot be
had, the tests are skipped.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from layerguard.exporter.fused.pipeline import fuse
from layerguard.runtime.triton.config import TYPES
from layerguard.runtime.triton.repository import write_repository
from tests.bench.minilm import CACHE
from tests.fused.bundles import calibrated
from tests.gateways import environments
from tests.runtime.triton import pbtxt

_READ = """
import json, sys
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2 as schema

config = text_format.Parse(open(sys.argv[1]).read(), schema.ModelConfig())
print(json_format.MessageToJson(config, preserving_proto_field_name=True))
"""


@pytest.fixture(scope="module")
def python() -> str:
    """The interpreter that has Triton's messages."""
    try:
        return str(environments.python(CACHE / "gateways", "triton"))
    except environments.AbsentError as error:
        pytest.skip(f"tritonclient cannot be had ({error})")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The two models of a bundle of three detectors."""
    folder = tmp_path_factory.mktemp("schema")
    fuse(calibrated(folder / "bundle"), threads=1)
    return write_repository(folder / "bundle", folder / "models", "guard", "cuda")


def _read(python: str, file: Path) -> subprocess.CompletedProcess[str]:
    command = [python, "-c", _READ, str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_tritons_message_is_what_was_written(python: str, folders: list[Path]) -> None:
    """Every field of both files is one of ``ModelConfig``, with the value that we mean."""
    for folder in folders:
        file = folder / "config.pbtxt"
        done = _read(python, file)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        own = pbtxt.parse(file.read_text(encoding="ascii"))
        assert found["name"] == own["name"][0] == folder.name
        assert found["backend"] == own["backend"][0]
        assert found.get("max_batch_size", 0) == own["max_batch_size"][0]
        assert ("dynamic_batching" in found) == ("dynamic_batching" in own)
        assert found["instance_group"][0]["kind"] == own["instance_group"][0]["kind"][0]
        for kind in ("input", "output"):
            for one, ours in zip(found[kind], own[kind], strict=True):
                assert [one["name"], one["data_type"]] == ours["name"] + ours["data_type"]
                assert list(map(int, one["dims"])) == ours["dims"][0]
                assert one.get("optional", False) == ours.get("optional", [False])[0]
        assert found["parameters"] == json.loads(pbtxt.to_json(own))["parameters"]


def test_tritons_message_refuses_other_fields(python: str, folders: list[Path]) -> None:
    """The check can fail."""
    file = folders[0] / "config.pbtxt"
    wrong = file.with_name("wrong.pbtxt")
    text = file.read_text(encoding="ascii")
    for changed in (f"{text}batching: 1", text.replace("TYPE_STRING", "TYPE_TEXT")):
        wrong.write_text(changed, encoding="ascii")
        assert _read(python, wrong).returncode != 0


def test_every_type_is_one_of_tritons(python: str) -> None:
    """The names in the table exist."""
    program = (
        "import sys; from tritonclient.grpc import model_config_pb2 as schema; "
        "[schema.DataType.Value(name) for name in sys.argv[1:]]"
    )
    subprocess.run([python, "-c", program, *TYPES.values()], check=True)
