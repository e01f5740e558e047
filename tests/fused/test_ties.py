"""Scores equal to a threshold or a clean score: graph, Python and C agree."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from layerguard.exporter.fused import decision
from layerguard.exporter.fused.nodes import Nodes
from layerguard.runtime import Bundle
from layerguard.runtime.decision.policy import Decision
from layerguard.runtime.detectors.decide import decide
from layerguard.runtime.types import Array
from tests.runtime.test_decision import NAMES, SCORES, calibrated
from tests.test_c_guard import serve, states_like
from tests.tiny import OPSET, make_bundle

_NEXT = [np.nextafter(SCORES, -np.inf), SCORES, np.nextafter(SCORES, np.inf)]
_TIES = np.concatenate([*_NEXT, np.column_stack([SCORES[:, 0], SCORES[::-1, 1]])])
"""Scores of clean texts, their float64 neighbours, and combinations of two texts' scores."""


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of LCF and SIREN."""
    return make_bundle(tmp_path_factory.mktemp("ties") / "bundle")


def fused(bundle: Bundle, scores: Array) -> dict[str, Array]:
    """The graph's outputs for scores [texts, detectors] at the bundle's thresholds."""
    rule = Decision(bundle)
    graph = helper.make_graph([], "ties", [], [])
    nodes, flags = Nodes(graph), {}
    for name in NAMES:
        item = helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["texts"])
        graph.input.append(item)
        threshold = nodes.constant(rule.limits[None].thresholds[name], np.float64)
        flags[name] = decision.flagged(nodes, name, threshold)
        clean = np.array(rule.limits[None].clean_scores[name])
        nodes.output(f"{name}_p_value", decision.p_value(nodes, name, clean), np.float64)
        nodes.output(f"{name}_flagged", flags[name], np.bool_)
    deciding, blocks = list(rule.enforced), rule.limits[None].blocks
    assert blocks is not None
    nodes.output("p_value", decision.guard_p_value(nodes, deciding, blocks), np.float64)
    mine = [flags[name] for name in deciding]
    nodes.output("flagged", decision.combined(nodes, deciding, mine, rule.policy), np.bool_)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [item.name for item in session.get_outputs()]
    feeds = dict(zip(NAMES, np.ascontiguousarray(scores.T), strict=True))
    return dict(zip(names, session.run(names, feeds), strict=True))


@pytest.mark.parametrize(
    ("policy", "shadow"), [("any", ()), ("all", ()), ("any", ("lcf",)), ("siren", ("lcf",))]
)
def test_graph_python_and_c_count_ties_alike(
    sound: Path, tmp_path: Path, policy: str, shadow: tuple[str, ...]
) -> None:
    """A clean score equal to the score is counted; a score equal to its threshold passes."""
    bundle = calibrated(sound, policy, shadow)
    rule, limits = Decision(bundle), Decision(bundle).limits[None]
    guard = serve(bundle, tmp_path / "detectors.npz")
    guard.score(states_like("float32", "rows", 0))
    on = np.array([[limits.thresholds[name] for name in NAMES]])
    scores = np.concatenate([_TIES, on, np.nextafter(on, np.inf), np.nextafter(on, -np.inf)])
    graph = fused(bundle, scores)
    seen = set()
    for place, row in enumerate(scores.tolist()):
        found = {
            name: decide(name, score, limits.thresholds[name], limits.clean_scores[name], ())
            for name, score in zip(NAMES, row, strict=True)
        }
        for name, score in zip(NAMES, row, strict=True):
            clean = SCORES[:, NAMES.index(name)]
            expected = (1 + int((clean >= score).sum())) / (len(clean) + 1)
            assert graph[f"{name}_p_value"][place] == expected == found[name].p_value
            above = score > limits.thresholds[name]
            assert bool(graph[f"{name}_flagged"][place]) == above == found[name].flagged
        for reading, score in zip(guard.readings, row, strict=True):
            reading.score = score
        python, c = rule.decide(found), guard.decide(None)
        assert bool(graph["flagged"][place]) == python.flagged == c.flagged
        assert graph["p_value"][place] == python.p_value == c.p_value
        seen.add(python.flagged)
    assert seen == {True, False}
    mine = [NAMES.index(name) for name in rule.enforced]
    assert not graph["flagged"][len(_TIES)]
    assert graph["flagged"][len(_TIES) + 1]
    assert mine
