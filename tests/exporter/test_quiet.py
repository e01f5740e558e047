"""Only the conversion libraries are silenced, and only within the block."""

import logging
import threading
import warnings
from pathlib import Path

import pytest
import torch

from layerguard.exporter.graph.convert import convert, trace
from layerguard.exporter.graph.precision import quantize
from layerguard.exporter.graph.score import score_graph
from layerguard.exporter.loading.architecture import examine
from layerguard.exporter.proof.reference import References
from layerguard.exporter.quiet import quiet
from tests.exporter.models import build

LIBRARY_LOGGERS = ("torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir")


def levels() -> dict[str, int]:
    """The levels of all loggers."""
    names = ["", *LIBRARY_LOGGERS, *logging.Logger.manager.loggerDict]
    return {name: logging.getLogger(name).level for name in names}


def warn_from(module: str) -> None:
    """Emit a warning that is attributed to a module."""
    warnings.warn_explicit("planted", UserWarning, f"{module}.py", 1, module=module)


@pytest.mark.parametrize("name", ["onnxscript.optimizer", "torch.export", "onnx_ir.passes"])
def test_log_lines_of_the_libraries_are_hidden(name: str) -> None:
    """Within the block only; children of a library's logger are included."""
    logger = logging.getLogger(name)
    assert logger.isEnabledFor(logging.ERROR)
    with quiet():
        assert not logger.isEnabledFor(logging.ERROR)
    assert logger.isEnabledFor(logging.ERROR)


def test_log_lines_of_the_caller_pass(caplog: pytest.LogCaptureFixture) -> None:
    """The root logger and other loggers keep their levels within the block."""
    with quiet():
        logging.getLogger().warning("root")
        logging.getLogger("caller").warning("own")
        logging.getLogger("onnxscript").warning("hidden")
    assert caplog.messages == ["root", "own"]


@pytest.mark.parametrize("module", ["torch.onnx", "transformers.models.llama", "onnxscript"])
def test_warnings_of_the_libraries_are_hidden(module: str) -> None:
    """Within the block only."""
    with quiet():
        warn_from(module)
    with pytest.warns(UserWarning, match="planted"):
        warn_from(module)


@pytest.mark.parametrize("module", ["caller", "torchlike", "copyreg", "contextlib"])
def test_warnings_of_the_caller_pass(module: str) -> None:
    """Filters of the caller apply to all other modules within the block."""
    with quiet(), pytest.raises(UserWarning, match="planted"):
        warn_from(module)


def test_levels_and_filters_are_restored() -> None:
    """After nested blocks and after an exception."""
    before, filters = levels(), list(warnings.filters)
    with quiet(), quiet():
        assert levels() != before
    assert levels() == before
    with pytest.raises(ValueError, match="planted"), quiet():
        raise ValueError("planted")
    assert levels() == before
    assert list(warnings.filters) == filters


def test_two_threads_restore_levels_and_filters() -> None:
    """A second thread enters its block after the first thread has left its own."""
    before, filters = levels(), list(warnings.filters)
    entered, leave = threading.Event(), threading.Event()

    def second() -> None:
        with quiet():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=second)
    with quiet():
        thread.start()
        assert not entered.wait(0.2)
    assert entered.wait(10)
    leave.set()
    thread.join()
    assert levels() == before
    assert list(warnings.filters) == filters


def test_a_trace_and_a_quantisation_change_no_logger(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No handler, level or filter is changed, and no warning is logged."""
    architecture = examine(build("llama", num_hidden_layers=1))
    spec = score_graph(architecture, "pooled", 1, 0, References(architecture))
    root = logging.getLogger()
    before = levels(), list(root.handlers), list(warnings.filters)
    with torch.no_grad():
        quantize(convert(trace(spec), spec), tmp_path)
    after = levels()
    assert {name: after[name] for name in before[0]} == before[0]
    assert (list(root.handlers), list(warnings.filters)) == before[1:]
    assert [line for line in caplog.records if line.levelno >= logging.WARNING] == []
