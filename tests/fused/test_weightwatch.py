"""WeightWatch in the graph, on given states: padding does not change scores."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from layerguard.exporter.fused import weightwatch
from layerguard.exporter.fused.nodes import Nodes
from layerguard.exporter.fused.taps import Taps
from layerguard.runtime.bundle.manifest import GraphCard, OutputCard, Parity
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.model.plan import Planner
from layerguard.runtime.types import Array
from tests.reference import weightwatch as reference
from tests.tiny import LAYERS, OPSET, WIDTH, params_of

_ROWS, _LONGEST = 4, 7
_LENGTHS = (7, 4, 1, 5)


def params() -> dict[str, Array]:
    """Directions of two states; every role has its own ranges."""
    mine = params_of("weightwatch")
    reach = np.array([[0.7], [1.0], [1.3], [0.5]], np.float32)
    return mine | {name: mine[name] * reach for name in ("low", "high")}


@pytest.fixture(scope="module")
def session() -> onnxruntime.InferenceSession:
    """A graph with only WeightWatch, whose inputs are the states."""
    names = [f"state_{layer:02}" for layer in range(LAYERS + 1)]
    graph = helper.make_graph(
        [],
        "watched",
        [
            helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["rows", "tokens"]),
            *(
                helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", "tokens", WIDTH])
                for name in names
            ),
        ],
        [],
    )
    cards = tuple(OutputCard(name, "state", layer) for layer, name in enumerate(names))
    card = GraphCard("score.onnx", "states", OPSET, (), cards, Parity(1e-4, 1, {}))
    nodes = Nodes(graph)
    taps = Taps(nodes, Planner(card, LAYERS), WIDTH)
    tap = REGISTRY["weightwatch"].bind(params()).tap
    nodes.output("score", weightwatch.score(taps, tap, params()), np.float64)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.checker.check_model(model)
    return onnxruntime.InferenceSession(model.SerializeToString())


def batch(seed: int, side: str) -> tuple[Array, Array, Array]:
    """States [L + 1, rows, tokens, D], roles and mask of rows padded on one side."""
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(LAYERS + 1, _ROWS, _LONGEST, WIDTH)).astype(np.float32)
    roles = rng.integers(0, 4, (_ROWS, _LONGEST))
    mask = np.arange(_LONGEST) < np.array(_LENGTHS)[:, None]
    return states, roles, mask[:, ::-1].copy() if side == "left" else mask


def run(session: onnxruntime.InferenceSession, states: Array, roles: Array, mask: Array) -> Array:
    """The scores of the rows."""
    feeds = {f"state_{layer:02}": state for layer, state in enumerate(states)}
    feeds |= {"attention_mask": mask.astype(np.int64), "roles": roles}
    found: Array = session.run(["score"], feeds)[0]
    return found


def oracle(states: Array, roles: Array, mask: Array) -> list[float]:
    """The scores by the float64 reference, from the unmasked tokens only."""
    mine = params()
    found = []
    for row, kept in enumerate(mask):
        cosines = reference.cosines(
            states[:, row, kept], mine["directions"], mine["layers"].tolist()
        )
        extremes = reference.extremes(cosines, roles[row, kept])
        found.append(reference.excess(extremes, mine["low"], mine["high"], mine["scale"]))
    return found


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("what", ["ordinary", "along", "against", "zero", "nan", "inf"])
def test_padded_positions_count_for_nothing(
    session: onnxruntime.InferenceSession, side: str, what: str
) -> None:
    """Padded states may be a watched direction, zero, NaN or infinite."""
    for seed in range(5):
        states, roles, mask = batch(seed, side)
        direction = params()["directions"][seed]
        padding = {"along": direction, "against": -direction, "zero": 0, "nan": np.nan,
                   "inf": np.inf}  # fmt: skip
        if what in padding:
            states[:, ~mask] = padding[what]
        found = run(session, states, roles, mask)
        np.testing.assert_allclose(found, oracle(states, roles, mask), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_roles_of_padding_count_for_nothing(
    session: onnxruntime.InferenceSession, side: str
) -> None:
    """Padding may have any role, also an invalid one."""
    states, roles, mask = batch(0, side)
    expected = oracle(states, roles, mask)
    roles[~mask] = 9
    np.testing.assert_allclose(run(session, states, roles, mask), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("value", [0, np.nan, np.inf])
def test_one_token_without_a_direction_makes_its_row_no_number(
    session: onnxruntime.InferenceSession, side: str, value: float
) -> None:
    """At any position and in any state that is read; other rows do not change."""
    for layer in (1, 3):
        for place in range(_LENGTHS[3]):
            states, roles, mask = batch(1, side)
            expected = oracle(states, roles, mask)
            states[layer, 3, np.flatnonzero(mask[3])[place]] = value
            found = run(session, states, roles, mask)
            assert np.isnan(found[3])
            np.testing.assert_allclose(found[:3], expected[:3], rtol=1e-4, atol=1e-4)
