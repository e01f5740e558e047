"""Frozen regressors: the plain arrays give scikit-learn's predictions."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerguard.calibration.drift.regressors import REGRESSORS, freeze_regressor
from layerguard.runtime.drift.manifest import RegressorName
from layerguard.runtime.drift.regressor import predict, regressor_arrays, regressor_faults
from layerguard.runtime.types import Array

TRAITS = 7
EQUAL = 1e-6
"""Between frozen and fitted; they differ in the order of a sum of float64."""


def data(seed: int, n: int, spread: float) -> tuple[Array, Array]:
    """Drifts of the given spread, and rates that depend on them, both with ties."""
    rng = np.random.default_rng(seed)
    drift = np.round(spread * rng.normal(size=(n, TRAITS)), 6)
    drift[::5] = drift[0]
    rates = np.clip(0.3 * np.abs(drift[:, 2] / spread) + 0.1 * rng.random(n), 0, 1)
    return drift, np.round(rates, 2)


@pytest.fixture(scope="module", params=list(REGRESSORS))
def fitted(request: pytest.FixtureRequest) -> tuple[Any, dict[str, Array]]:
    """A fitted model and its arrays."""
    drift, rates = data(0, 60, 0.1)
    model = REGRESSORS[request.param]().fit(drift, rates)
    return model, freeze_regressor(model, TRAITS)


@pytest.mark.parametrize("name", REGRESSORS)
@settings(max_examples=8)
@given(st.integers(0, 2**32 - 1), st.integers(10, 80), st.sampled_from([1e-6, 1e-2, 1.0, 1e3]))
def test_frozen_is_what_was_fitted(name: RegressorName, seed: int, n: int, spread: float) -> None:
    """Predictions agree within 1e-6 on training rows and others, for drifts of any size."""
    drift, rates = data(seed, n, spread)
    model = REGRESSORS[name]().fit(drift, rates)
    frozen = freeze_regressor(model, TRAITS)
    fresh = np.concatenate([drift, data(seed + 1, 50, 3 * spread)[0]])
    assert np.abs(predict(frozen, fresh) - model.predict(fresh)).max() <= EQUAL


def test_arrays_are_as_declared_and_sound(fitted: tuple[Any, dict[str, Array]]) -> None:
    """Names, dtypes and ranks match the monitor's reader, and the trees have no cycles."""
    _, frozen = fitted
    expected = regressor_arrays(TRAITS)
    assert {name: (a.dtype.name, a.ndim) for name, a in frozen.items()} == {
        name: (dtype, len(shape)) for name, (dtype, shape) in expected.items()
    }
    assert regressor_faults(frozen, TRAITS) == []


def test_a_threshold_is_compared_in_float32(fitted: tuple[Any, dict[str, Array]]) -> None:
    """Next to every threshold of every tree, the branch taken is scikit-learn's.

    A float64 just above a threshold may round to a float32 below it: comparing float64 would go
    the other way.
    """
    model, frozen = fitted
    thresholds, features = frozen["tree_threshold"], frozen["tree_feature"]
    rows = []
    for threshold, feature in zip(thresholds[:300], features[:300], strict=True):
        for value in (
            threshold,
            np.nextafter(threshold, 1),
            np.nextafter(threshold, -1),
            float(np.nextafter(np.float32(threshold), np.float32(1))),
        ):
            row = np.zeros(TRAITS)
            row[feature] = value
            rows.append(row)
    if rows:
        beside = np.array(rows)
        assert np.abs(predict(frozen, beside) - model.predict(beside)).max() <= EQUAL


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_what_no_float32_holds_predicts_nothing(
    fitted: tuple[Any, dict[str, Array]], value: float
) -> None:
    """A value beyond float32 gives NaN for its row only."""
    _, frozen = fitted
    rows = np.zeros((3, TRAITS))
    rows[1, 4] = value
    found = predict(frozen, rows)
    assert np.isnan(found).tolist() == [False, True, False]
    assert found[0] == found[2] == predict(frozen, rows[:1])[0]


def test_a_leaf_alone_is_a_tree() -> None:
    """With equal rates every tree is one leaf, and the prediction is the mean."""
    drift, _ = data(0, 20, 0.1)
    model = REGRESSORS["random_forest"]().fit(drift, np.full(20, 0.25))
    frozen = freeze_regressor(model, TRAITS)
    assert len(frozen["tree_left"]) == 100
    assert predict(frozen, drift) == pytest.approx(np.full(20, 0.25), abs=1e-12)
