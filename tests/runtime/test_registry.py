"""The registry: what every detector in it must do, whichever it is."""

from typing import Any

import numpy as np
import pytest

from layerguard.runtime.detectors import REGISTRY, Detector
from layerguard.runtime.detectors.kind import by_name
from layerguard.runtime.errors import InputError
from layerguard.runtime.types import ADDED, Tap
from tests.tiny import LAYERS, WIDTH, params_of

_TOKENS = 6


@pytest.fixture(params=REGISTRY)
def name(request: pytest.FixtureRequest) -> str:
    """Each detector in turn."""
    return str(request.param)


def _states(seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(LAYERS + 1, _TOKENS, WIDTH)).astype(np.float32)


def _as_read(detector: Detector, layers: list[Any]) -> list[Any]:
    """What the detector's tap makes of rows that are texts of one token each.

    The states hold nothing of what tuning added: such a detector gets some of their elements.
    """
    if detector.tap.pooling == ADDED:
        return [layers[1][:, : len(params_of("delta")["layers"])]]
    directions, probe = detector.tap.directions, detector.tap.probe
    texts = [dict(enumerate(layer[i : i + 1] for layer in layers)) for i in range(len(layers[0]))]
    if directions is not None:
        return [np.stack([directions.extremes(text) for text in texts])]
    if probe is not None:
        return [np.stack([probe.windows(text) for text in texts])]
    return layers


def test_a_name_stands_once() -> None:
    """Two detectors of one name are refused; neither would be found."""
    kind = next(iter(REGISTRY.values()))
    with pytest.raises(ValueError, match=rf"registered twice: \['{kind.name}'\]"):
        by_name(kind, kind)


def test_the_registry_cannot_be_changed() -> None:
    """A detector is added in its source, not at run time."""
    with pytest.raises(TypeError):
        REGISTRY["lcf"] = REGISTRY["siren"]  # type: ignore[index]


def test_entries_say_who_they_are(name: str) -> None:
    """Each has the name it stands under, and a question that ends in a question mark."""
    assert REGISTRY[name].name == name
    assert REGISTRY[name].question.endswith("?")


def test_sound_parameters_have_no_faults(name: str) -> None:
    """What fits is said to fit; nothing at all is a fault for every array."""
    kind = REGISTRY[name]
    assert kind.faults(params_of(name), LAYERS, WIDTH) == []
    assert len(kind.faults({}, LAYERS, WIDTH)) == len(params_of(name)) - 2 * (name == "siren")


@pytest.mark.parametrize(
    "name", [n for n, k in REGISTRY.items() if k.tap.pooling in ("last", "mean")]
)
@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_states_score_as_their_pooling_does(name: str, pooling: Any) -> None:
    """``score`` is ``score_pooled`` of what the tap says, the default or another."""
    detector = REGISTRY[name].bind(params_of(name), Tap("content", pooling))
    states = _states()
    pooled = states[:, -1] if pooling == "last" else states.mean(axis=1, dtype=np.float64)
    (expected,) = detector.score_pooled(pooled.astype(np.float32)[:, None])
    found = detector.score(states)
    assert found.score == pytest.approx(expected.score, rel=1e-6)
    assert detector.tap == Tap("content", pooling)
    assert REGISTRY[name].bind(params_of(name)).tap == REGISTRY[name].tap


def test_a_flagged_reading_says_where(name: str) -> None:
    """Evidence names layers that the detector reads, the largest first."""
    detector = REGISTRY[name].bind(params_of(name) | {"threshold": np.array(-1e3)})
    if detector.tap.pooling == ADDED:
        reading = detector.score_pooled(_as_read(detector, list(_states())))[0]
    else:
        reading = detector.score(_states())
    assert reading.flagged
    sizes = [abs(item.value) for item in reading.evidence]
    assert sizes
    assert sizes == sorted(sizes, reverse=True)
    assert all(0 <= item.layer <= LAYERS for item in reading.evidence)


@pytest.mark.parametrize("name", [n for n, k in REGISTRY.items() if k.tap.pooling != ADDED])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_evidence_does_not_depend_on_the_dtype(name: str, dtype: str) -> None:
    """States that both dtypes hold exactly give the very same reading."""
    params = params_of(name) | {"threshold": np.array(-1.0)}
    detector = REGISTRY[name].bind(params)
    exact = np.round(_states() * 4)
    if dtype == "float16":
        narrow = exact.astype(np.float16)
    else:
        narrow = (exact.view(np.uint32) >> 16).astype(np.uint16)
    rows = [[layer[:2] for layer in layers] for layers in (exact, narrow)]
    wide, half = [detector.score_pooled(_as_read(detector, layers)) for layers in rows]
    assert wide == half


def test_rows_do_not_know_of_each_other(name: str) -> None:
    """A row's reading is the same alone and among others."""
    detector = REGISTRY[name].bind(params_of(name))
    layers = _as_read(detector, list(_states()))
    together = detector.score_pooled(layers)
    alone = [detector.score_pooled([layer[i : i + 1] for layer in layers])[0] for i in range(6)]
    assert together == alone


@pytest.mark.parametrize("name", REGISTRY)
def test_parameters_that_are_missing_are_named(name: str) -> None:
    """Binding what no fit returned says what lacks."""
    with pytest.raises(InputError, match=f"{name}: the parameters lack .*threshold"):
        REGISTRY[name].bind({})
