"""LCF's fit: published numbers, held-out scores, realised rates and errors."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerguard.calibration import lcf
from layerguard.calibration.lcf import estimation
from layerguard.calibration.lcf.held_out import held_out_scores
from layerguard.calibration.lcf.statistics import aggregate, precision
from layerguard.calibration.rows.folds import random_folds
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.errors import CalibrationError, InputError
from layerguard.runtime.types import Array
from tests.calibration.synthetic import LAYERS, WIDTH, clean_states
from tests.reference import lcf as oracle
from tests.reference import ledoit_wolf
from tests.tolerances import GOLDEN

MODES: tuple[lcf.Mode, ...] = ("cross-fit", "loo", "reference")


@pytest.mark.shared
def test_reference_mode_reproduces_the_golden_vectors(shared: Path) -> None:
    """Parameters, leave-one-out scores and threshold of the authors' code, to 1e-5."""
    golden = json.loads((shared / "golden" / "lcf_golden.json").read_text(encoding="utf-8"))
    deltas = np.array(golden["cal_deltas"], dtype=np.float32)
    states = np.concatenate([np.zeros_like(deltas[:, :1]), np.cumsum(deltas, axis=1)], axis=1)
    params = lcf.fit(states, mode="reference", target_fpr=0.1)
    names = {
        "mu": "layer_delta_mu", "sigma": "layer_delta_sigma", "score_mean": "layer_score_mu",
        "score_scale": "layer_score_sigma", "centre": "agg_mu", "precision": "agg_precision",
        "threshold": "threshold_loo",
    }  # fmt: skip
    for ours, theirs in names.items():
        np.testing.assert_allclose(params[ours], golden[theirs], rtol=GOLDEN, atol=GOLDEN)
    np.testing.assert_allclose(
        params["clean_scores"], np.sort(golden["loo_scores"]), rtol=GOLDEN, atol=GOLDEN
    )


@given(n=st.integers(5, 40), p=st.integers(1, 6), seed=st.integers(0, 999))
def test_precision_inverts_the_ledoit_wolf_covariance(n: int, p: int, seed: int) -> None:
    """The precision agrees with the paper's formula, written in loops."""
    rows = np.random.default_rng(seed).normal(size=(n, p))
    product = precision(rows) @ ledoit_wolf.covariance(rows)
    np.testing.assert_allclose(product, np.eye(p), atol=1e-8)


def refitted_scores(states: Array, folds: Array) -> Array:
    """Held-out scores by refitting everything for every fold, with the oracle's formulas."""
    scores = np.empty(len(states))
    deltas = np.diff(states, axis=1).astype(np.float64)
    for fold in np.unique(folds):
        held = folds == fold
        mu, sigma = deltas[~held].mean(axis=0), estimation._floored(deltas[~held].std(axis=0))
        length = oracle.lengths(states.transpose(1, 0, 2), mu, sigma)
        fitted = aggregate(length[~held])
        z = oracle.z_scores(length[held], fitted.mean, fitted.scale)
        covariance = ledoit_wolf.covariance(fitted.z(length[~held]))
        scores[held] = oracle.scores(z, fitted.centre, np.linalg.inv(covariance))
    return scores


@pytest.mark.parametrize("folds_count", [2, 5, 24])
def test_held_out_scores_are_those_of_a_full_refit(folds_count: int) -> None:
    """Sums and matrix products give the scores of a refit without the fold."""
    states = clean_states(24, seed=1)
    folds = random_folds(np.arange(24), folds_count, seed=2)
    found = held_out_scores(states, folds, estimation._floored)
    # the oracle subtracts states in double, the fit in float32 as the kernel does
    np.testing.assert_allclose(found, refitted_scores(states, folds), rtol=1e-5)


def test_chunks_of_folds_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A size limit of one fold at a time gives the same scores."""
    states, folds = clean_states(30, seed=3), np.arange(30)
    at_once = held_out_scores(states, folds, estimation._floored)
    monkeypatch.setattr("layerguard.calibration.lcf.held_out._BYTES_AT_ONCE", 1)
    np.testing.assert_allclose(
        held_out_scores(states, folds, estimation._floored), at_once, rtol=1e-9
    )


@pytest.mark.parametrize("mode", MODES)
def test_params_are_fit_to_be_served(mode: lcf.Mode) -> None:
    """The registry finds no fault, and the bound detector scores a text."""
    params = lcf.fit(clean_states(40, seed=0), mode, target_fpr=0.1)
    assert REGISTRY["lcf"].faults(params, LAYERS, WIDTH) == []
    tokens = clean_states(5, seed=9).transpose(1, 0, 2)
    reading = REGISTRY["lcf"].bind(params).score(np.ascontiguousarray(tokens))
    assert math.isfinite(reading.score)


@pytest.mark.parametrize("mode", ["loo", "reference"])
def test_order_of_rows_does_not_matter(mode: lcf.Mode) -> None:
    """Modes without random folds do not depend on the order of the prompts."""
    states = clean_states(40, seed=4)
    shuffled = states[np.random.default_rng(0).permutation(40)]
    first, second = lcf.fit(states, mode, target_fpr=0.1), lcf.fit(shuffled, mode, target_fpr=0.1)
    for name, value in first.items():
        np.testing.assert_allclose(second[name], value, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("mode", MODES)
def test_same_inputs_give_the_same_bytes(mode: lcf.Mode) -> None:
    """Equal arguments give equal bytes."""
    states = clean_states(40, seed=5)
    first, second = (
        lcf.fit(states, mode, seed=3, target_fpr=0.1),
        lcf.fit(states.copy(), mode, seed=3, target_fpr=0.1),
    )
    assert {k: v.tobytes() for k, v in first.items()} == {k: v.tobytes() for k, v in second.items()}


@pytest.mark.parametrize("mode", ["cross-fit", "loo"])
def test_fresh_prompts_are_flagged_at_the_target(mode: lcf.Mode) -> None:
    """The mean realised rate over draws equals the target within four standard errors."""
    realised = []
    for draw in range(30):
        states = clean_states(399, seed=100 + draw)
        detector = REGISTRY["lcf"].bind(lcf.fit(states[:99], mode, target_fpr=0.1, seed=draw))
        fresh = np.ascontiguousarray(states[99:].transpose(1, 0, 2))
        realised.append(np.mean([r.flagged for r in detector.score_pooled(fresh)]))
    error = np.std(realised, ddof=1) / math.sqrt(len(realised))
    assert abs(np.mean(realised) - 0.1) < 4 * error


def shifted_sources(count: int, each: int, seed: int) -> tuple[Array, list[int]]:
    """Rows of some sources, each of which moves along a direction of its own."""
    rng = np.random.default_rng(seed)
    states = clean_states(count * each, seed).reshape(count, each, LAYERS + 1, WIDTH)
    states += 3 * rng.normal(size=(count, 1, LAYERS + 1, WIDTH)).astype(np.float32)
    sources = np.repeat(np.arange(count), each).tolist()
    return states.reshape(-1, LAYERS + 1, WIDTH), sources


def test_by_source_scores_have_not_seen_the_source() -> None:
    """The parameters are those of all rows; each score is that of a refit without the source."""
    states, sources = shifted_sources(4, 15, seed=8)
    found = lcf.train(states, "by-source", sources=sources)
    expected = refitted_scores(states, np.array(sources))
    np.testing.assert_allclose(found.held_out, expected, rtol=1e-5)
    assert found.settings == {"sources": 4}
    all_rows = lcf.train(states, "cross-fit").params
    assert {name: value.tobytes() for name, value in found.params.items()} == {
        name: value.tobytes() for name, value in all_rows.items()
    }


def test_a_new_source_is_flagged_near_the_target_by_source_only() -> None:
    """Sources are exchangeable here; random folds flag several times the target of a new one."""
    modes: tuple[lcf.Mode, ...] = ("cross-fit", "by-source")
    realised = dict.fromkeys(modes, 0.0)
    draws = 20
    for draw in range(draws):
        states, sources = shifted_sources(9, 25, seed=200 + draw)
        fresh = np.ascontiguousarray(states[200:].transpose(1, 0, 2))
        for mode in modes:
            params = lcf.fit(states[:200], mode, target_fpr=0.1, sources=sources[:200])
            readings = REGISTRY["lcf"].bind(params).score_pooled(fresh)
            realised[mode] += float(np.mean([reading.flagged for reading in readings])) / draws
    assert realised["cross-fit"] > 0.3
    assert realised["by-source"] < 0.2


def test_published_threshold_flags_more_than_it_says() -> None:
    """With a width far above the rows, ``reference`` exceeds its nominal 10 %."""
    realised = {}
    modes: tuple[lcf.Mode, ...] = ("reference", "cross-fit")
    for mode in modes:
        flags = []
        for draw in range(5):
            states = clean_states(260, seed=draw, width=800)
            detector = REGISTRY["lcf"].bind(lcf.fit(states[:60], mode, target_fpr=0.1))
            fresh = np.ascontiguousarray(states[60:].transpose(1, 0, 2))
            flags += [reading.flagged for reading in detector.score_pooled(fresh)]
        realised[mode] = np.mean(flags)
    assert realised["reference"] > 0.13
    assert realised["cross-fit"] < realised["reference"]


def test_groups_count_once_with_their_largest_score() -> None:
    """Windows of one text count as one prompt with the score of the worst window."""
    states = clean_states(60, seed=6)
    groups = np.repeat(np.arange(20), 3)
    params = lcf.fit(states, "loo", target_fpr=0.1, groups=groups)
    alone = held_out_scores(states, groups, estimation._floored)
    assert params["clean_scores"].tolist() == np.sort(alone.reshape(20, 3).max(axis=1)).tolist()


def test_a_constant_dimension_raises_no_alarm_alone() -> None:
    """A change of 1e-6 in a dimension that was constant in calibration keeps the score."""
    states = clean_states(60, seed=7)
    states[:, :, 0] = 1.0
    detector = REGISTRY["lcf"].bind(lcf.fit(states, target_fpr=0.1))
    moved = states[:1].copy()
    moved[0, 2, 0] += 1e-6
    before, after = (
        detector.score_pooled(np.ascontiguousarray(s.transpose(1, 0, 2)))[0].score
        for s in (states[:1], moved)
    )
    assert after == pytest.approx(before, rel=1e-3)


def test_a_target_that_the_prompts_cannot_support_is_refused() -> None:
    """One per cent needs 99 prompts."""
    with pytest.raises(CalibrationError, match=r"target 1 % needs at least 99 clean prompts"):
        lcf.fit(clean_states(98, seed=0), target_fpr=0.01)
    assert lcf.fit(clean_states(99, seed=0), target_fpr=0.01)["clean_scores"].shape == (99,)


def test_too_few_prompts_are_refused() -> None:
    """Nine prompts are too few for any target."""
    with pytest.raises(CalibrationError, match="found 9 clean prompts; expected at least 10"):
        lcf.fit(clean_states(9, seed=0), target_fpr=0.5)


def test_prompts_that_do_not_differ_are_refused() -> None:
    """Equal rows have no spread and are refused."""
    with pytest.raises(CalibrationError, match="same difference of states 0 and 1"):
        lcf.fit(np.repeat(clean_states(1, seed=0), 30, axis=0), target_fpr=0.1)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_row_that_is_not_finite_is_named(value: float) -> None:
    """The message has row and state of the first non-finite value, and the number of rows."""
    states = clean_states(30, seed=0)
    states[17, 2, 5] = value
    states[20, 0, 0] = value
    with pytest.raises(CalibrationError, match=r"row 17 is not finite at state 2 \(2 such rows"):
        lcf.fit(states, target_fpr=0.1)


@pytest.mark.parametrize(
    "states",
    [np.zeros((20, 4)), np.zeros((20, 1, 4)), np.zeros((20, 3, 4), dtype=np.int64)],
    ids=["two-dimensional", "one state", "integers"],
)
def test_states_of_another_form_are_refused(states: Array) -> None:
    """What was found and what was expected."""
    with pytest.raises(InputError, match=r"expected floats \[rows, layers \+ 1, hidden\]"):
        lcf.fit(states, target_fpr=0.1)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("target", [0.0, 1.0, math.nan])
def test_a_target_that_is_no_share_is_refused(mode: lcf.Mode, target: float) -> None:
    """Every mode refuses a target outside (0, 1)."""
    with pytest.raises(InputError, match="between 0 and 1"):
        lcf.fit(clean_states(30, seed=0), mode, target)


def test_an_unknown_mode_is_refused() -> None:
    """The message lists the valid modes."""
    with pytest.raises(InputError, match="cross-fit, by-source, loo, reference"):
        lcf.fit(clean_states(30, seed=0), mode="exact", target_fpr=0.1)  # type: ignore[arg-type]
