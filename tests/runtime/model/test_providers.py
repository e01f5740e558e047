"""A graph runs on the requested provider only, without fallback at load or at run time."""

from pathlib import Path
from typing import Any

import pytest

from layerguard.runtime import BundleError, MachineError
from layerguard.runtime.model.providers import open_graph
from tests.tiny import make_bundle

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


class _InvalidGraph(Exception):  # noqa: N818  as onnxruntime's, of no other type
    """The graph's own fault."""


class _Runtime:
    """A fake onnxruntime that records its calls and fails on request."""

    def __init__(self, error: Exception | None = None) -> None:
        self.called: dict[str, Any] = {}
        self._error = error

    def InferenceSession(self, *_: Any, **named: Any) -> str:  # noqa: N802  onnxruntime's name
        self.called = named
        if self._error:
            raise self._error
        return "a session"


@pytest.mark.parametrize(("provider", "options"), [(CPU, {}), (CUDA, {"use_tf32": "0"})])
def test_a_graph_is_opened_without_a_fallback(provider: str, options: dict[str, str]) -> None:
    """ONNX Runtime retries on the CPU, when it opens a graph and when it runs it; not here.

    CUDA multiplies float32 as float32.
    """
    runtime = _Runtime()
    assert open_graph(runtime, Path("score.onnx"), None, provider) == "a session"
    assert runtime.called == {"providers": [(provider, options)], "enable_fallback": 0}


@pytest.mark.parametrize("error", [RuntimeError("CUDA failure 100"), ValueError("no such option")])
def test_a_provider_that_fails_is_an_error_of_the_machine(error: Exception) -> None:
    """A missing device or library is not a fault of the bundle."""
    with pytest.raises(MachineError, match=rf"{CUDA} did not engage.*{error}"):
        open_graph(_Runtime(error), Path("score.onnx"), None, CUDA)


@pytest.mark.parametrize(
    ("provider", "error"), [(CUDA, _InvalidGraph("node 3")), (CPU, RuntimeError("node 3"))]
)
def test_a_graph_that_cannot_be_loaded_is_the_bundles_fault(
    provider: str, error: Exception
) -> None:
    """The CPU is always there; and on CUDA a fault of the graph has a type of its own."""
    with pytest.raises(BundleError, match=r"score\.onnx cannot be loaded.*node 3"):
        open_graph(_Runtime(error), Path("bundle/score.onnx"), None, provider)


def test_onnxruntime_takes_what_it_is_told(tmp_path: Path) -> None:
    """With the real onnxruntime, the fallback is off."""
    import onnxruntime  # noqa: PLC0415

    graph = make_bundle(tmp_path / "bundle") / "score.onnx"
    session = open_graph(onnxruntime, graph, onnxruntime.SessionOptions(), CPU)
    assert session.get_providers() == [CPU]
    assert session._enable_fallback is False
