"""LCF against the vectors of ``tests/golden/lcf.json``, which everybody has."""

from typing import Any

import numpy as np
import pytest

from layerguard.calibration import lcf
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.types import Array
from tests.golden import lcf as golden
from tests.tolerances import GOLDEN

MODES: tuple[lcf.Mode, ...] = ("reference", "cross-fit")
SAME = 1e-9
"""Of the oracle on another machine: sums of some dozens of doubles in another order."""


@pytest.fixture(scope="module")
def vectors() -> dict[str, Any]:
    """The committed file."""
    return golden.read()


def states(vectors: dict[str, Any], name: str) -> Array:
    """Of the clean or the other prompts, float32 [rows, layers + 1, width]; none is rounded."""
    found = np.array(vectors[name])
    single = found.astype(np.float32)
    assert (single == found).all()
    return single


def test_the_script_draws_the_committed_states(vectors: dict[str, Any]) -> None:
    """To a step of their grid: a machine's exp and log may round otherwise."""
    for name, drawn in zip(("clean", "others"), golden.draw(), strict=True):
        np.testing.assert_allclose(vectors[name], drawn, rtol=0, atol=golden.STEP)


@pytest.mark.parametrize("mode", MODES)
def test_the_script_makes_the_committed_vectors(vectors: dict[str, Any], mode: lcf.Mode) -> None:
    """From the committed states: parameters, thresholds and scores."""
    made = golden.vectors(np.array(vectors["clean"]), np.array(vectors["others"]))[mode]
    committed = vectors[mode]
    assert made.keys() == committed.keys()
    assert made["params"].keys() == committed["params"].keys()
    for found, expected in zip(_arrays(made), _arrays(committed), strict=True):
        np.testing.assert_allclose(found, expected, rtol=SAME, atol=SAME)


@pytest.mark.parametrize("mode", MODES)
def test_the_fit_reproduces_them(vectors: dict[str, Any], mode: lcf.Mode) -> None:
    """Every parameter, every held-out score and the threshold, to the rounding of float32."""
    clean = states(vectors, "clean")
    params = lcf.fit(clean, mode, target_fpr=golden.TARGET_FPR, seed=golden.SEED)
    expected = vectors[mode]
    for name, array in expected["params"].items():
        np.testing.assert_allclose(params[name], array, rtol=GOLDEN, atol=GOLDEN, err_msg=name)
    for name in ("clean_scores", "threshold"):
        np.testing.assert_allclose(params[name], expected[name], rtol=GOLDEN, err_msg=name)


@pytest.mark.parametrize("mode", MODES)
def test_the_detector_reproduces_them(vectors: dict[str, Any], mode: lcf.Mode) -> None:
    """The score of every other prompt; the two outliers are flagged, and not all of the rest."""
    detector = REGISTRY["lcf"].bind(
        lcf.fit(states(vectors, "clean"), mode, golden.TARGET_FPR, golden.SEED)
    )
    readings = [detector.score(row[:, None]) for row in states(vectors, "others")]
    scores = [reading.score for reading in readings]
    np.testing.assert_allclose(scores, vectors[mode]["scores"], rtol=GOLDEN)
    assert all(reading.flagged for reading in readings[-2:])
    assert not all(reading.flagged for reading in readings[:-2])
    for reading, z in zip(readings, np.array(vectors[mode]["z"]), strict=True):
        worst = int(np.argmax(np.abs(z)))
        assert reading.evidence[0].layer == worst + 1
        np.testing.assert_allclose(reading.evidence[0].value, z[worst], rtol=GOLDEN)


def test_the_floor_matters(vectors: dict[str, Any]) -> None:
    """One dimension does not move in one block; the modes differ there alone."""
    sigma = {mode: np.array(vectors[mode]["params"]["sigma"]) for mode in MODES}
    assert np.argwhere(sigma["reference"] != sigma["cross-fit"]).tolist() == [[2, 2]]


def _arrays(vectors: dict[str, Any]) -> list[Any]:
    """Everything of one mode, in the order of names."""
    params = vectors["params"]
    names = sorted(vectors.keys() - {"params"})
    return [*(params[name] for name in sorted(params)), *(vectors[name] for name in names)]
