"""Bundles that never finish loading are refused within a deadline."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from onnx import ModelProto, TensorProto, helper

from layerguard.runtime import BundleError, Guard, InputError
from layerguard.runtime.cli import main
from layerguard.runtime.model.session import Session
from layerguard.runtime.trial import run_graphs, run_in_time
from layerguard.runtime.types import Array
from tests.runtime.tamper import put
from tests.tiny import LAYERS, WIDTH, make_bundle, make_graph
from tests.tiny_analysis import make_traceable


def _without_end() -> ModelProto:
    """The toy graph; its token ids go through a loop without a limit or an end."""
    model, _ = make_graph("pooled")
    values = [
        helper.make_tensor_value_info("turn", TensorProto.INT64, []),
        helper.make_tensor_value_info("again", TensorProto.BOOL, []),
        helper.make_tensor_value_info("ids", TensorProto.INT64, ["rows", "tokens"]),
    ]
    same = [
        helper.make_node("Identity", ["again"], ["and_again"]),
        helper.make_node("Identity", ["ids"], ["same_ids"]),
    ]
    ends = [
        helper.make_tensor_value_info("and_again", TensorProto.BOOL, []),
        helper.make_tensor_value_info("same_ids", TensorProto.INT64, ["rows", "tokens"]),
    ]
    body = helper.make_graph(same, "body", values, ends)
    model.graph.initializer.append(helper.make_tensor("true", TensorProto.BOOL, [], [True]))
    loop = helper.make_node("Loop", ["", "true", "input_ids"], ["looped"], body=body)
    model.graph.node[0].input[1] = "looped"
    model.graph.node.insert(0, loop)
    return model


@pytest.fixture
def endless(bundle: Path) -> Path:
    """A bundle whose graph never ends."""
    return put(bundle, "score.onnx", _without_end().SerializeToString())


def test_a_graph_that_does_not_end_is_refused(endless: Path) -> None:
    """The process that loads it is ended, and the message says what to do."""
    start = time.monotonic()
    with pytest.raises(BundleError, match="it was not loaded within 8 s: a graph, tokenizer or"):
        Guard.load(endless, threads=1, timeout=8)
    assert time.monotonic() - start < 30


def test_a_command_has_the_limit(endless: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``--timeout`` is that of ``Guard.load``."""
    assert main(["score", str(endless), "the garden", "--timeout", "5"]) == 2
    assert "it was not loaded within 5 s" in capsys.readouterr().err


def test_the_graphs_of_a_bundle_without_detectors_have_a_limit(
    endless: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are run, not only opened, in another process; ``calibrate`` then does not start."""
    bare = make_bundle(tmp_path / "bare", {})
    run_in_time(bare, "cpu", 1, 120)
    put(bare, "score.onnx", (endless / "score.onnx").read_bytes())
    with pytest.raises(BundleError, match="it was not loaded within 5 s"):
        run_in_time(bare, "cpu", 1, 5)
    arguments = ["calibrate", str(bare), "--clean", str(tmp_path / "none.jsonl"), "--timeout", "5"]
    assert main(arguments) == 2
    assert "it was not loaded within 5 s" in capsys.readouterr().err


def test_the_trial_runs_every_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one token, and zeros for the inputs of an analysis."""
    ran = []

    def run(session: Session, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        found = run_session(session, outputs, feeds)
        ran.append({name: array.shape for name, array in feeds.items()})
        return found

    run_session = Session.run
    monkeypatch.setattr(Session, "run", run)
    run_graphs(str(make_traceable(tmp_path / "bundle")), "cpu", 1)
    one = {"input_ids": (1, 1), "attention_mask": (1, 1)}
    assert ran == [one | {"bypass": (1, LAYERS), "keep": (1, LAYERS, WIDTH)}, one]


def test_a_bundle_that_loads_in_time_is_served(bundle: Path) -> None:
    """So is its signature, and a faulty bundle gives its own faults."""
    assert Guard.load(bundle, threads=1, timeout=120).check("the garden").status == "ok"
    (bundle / "score.onnx").unlink()
    with pytest.raises(BundleError, match=r"score\.onnx is missing"):
        Guard.load(bundle, threads=1, timeout=120)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), "5"])
def test_a_timeout_is_a_positive_number(bundle: Path, timeout: float) -> None:
    """Other values are refused before anything is loaded."""
    with pytest.raises(InputError, match="timeout: found"):
        Guard.load(bundle, timeout=timeout)
