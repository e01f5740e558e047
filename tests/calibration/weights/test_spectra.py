"""Spectra of changes: the vectors of the full SVD, without noise."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerguard.calibration.weights.spectra import RELATIVE_FLOOR, leading
from layerguard.calibration.weights.tuning import Change, between
from layerguard.runtime.types import Array
from tests.calibration.checkpoints import llama_weights, save_model
from tests.reference import spectra

RELATIVE = 1e-8
"""Of eigenvalues of the Gram matrix in float64: 1e-16 (sigma_0 / sigma)^2 with sigma >= 1e-3
sigma_0, and as much again for close singular values of small random matrices."""


def _change(*factors: Array, noise: float = 0.0) -> Change:
    return Change(0, 0, factors, base_norm=1.0, noise=noise)


def _matrix(rows: int, columns: int, values: Array, seed: int) -> Array:
    """A matrix with these singular values."""
    rng = np.random.default_rng(seed)
    left = np.linalg.qr(rng.normal(size=(rows, len(values))))[0]
    right = np.linalg.qr(rng.normal(size=(columns, len(values))))[0]
    made: Array = left * values @ right.T
    return made


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 25), st.integers(0, 2**32 - 1))
def test_a_whole_change_has_the_singular_values_of_its_svd(
    rows: int, columns: int, k: int, seed: int
) -> None:
    """Values agree to 1e-8, and vectors within the bound of their spectral gap."""
    matrix = np.random.default_rng(seed).normal(size=(rows, columns))
    found = leading(_change(matrix), k)
    values, _ = spectra.directions(np.zeros_like(matrix), matrix, k)
    values = values[values > RELATIVE_FLOOR * values[0]]
    np.testing.assert_allclose(found.values, values, rtol=RELATIVE)
    np.testing.assert_allclose(found.vectors @ found.vectors.T, np.eye(len(values)), atol=1e-9)
    # what is left along the vectors is what the values say
    np.testing.assert_allclose(np.linalg.norm(found.vectors @ matrix, axis=1), values, rtol=1e-6)
    assert found.energy == pytest.approx(np.linalg.norm(matrix) ** 2)


@given(st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_an_adapters_spectrum_is_its_products(rank: int, seed: int) -> None:
    """The QR of thin factors gives the SVD of B A."""
    rng = np.random.default_rng(seed)
    b, a = rng.normal(size=(30, rank)), rng.normal(size=(rank, 50))
    thin, whole = leading(_change(b, a), 20), leading(_change(b @ a), 20)
    assert len(thin.values) == len(whole.values) <= rank
    np.testing.assert_allclose(thin.values, whole.values, rtol=RELATIVE)
    assert thin.energy == pytest.approx(whole.energy)
    if rank > 1 and np.min(-np.diff(thin.values)) > 1e-2 * thin.values[0]:
        np.testing.assert_allclose(thin.vectors, whole.vectors, atol=1e-6)


def test_the_subspace_is_the_full_svds() -> None:
    """Principal angles are below 1e-6 for a spectrum that decays as a tuned model's."""
    matrix = _matrix(200, 300, np.geomspace(1, 1e-2, 60), seed=1)
    found = leading(_change(matrix), 20)
    _, vectors = spectra.directions(np.zeros_like(matrix), matrix, 20)
    cosines = np.linalg.svd(found.vectors @ vectors.T)[1]
    assert cosines.min() > 1 - 1e-12


def test_signs_do_not_depend_on_the_machine() -> None:
    """The component of largest magnitude is positive, so a matrix and its negative agree."""
    matrix = np.random.default_rng(2).normal(size=(20, 30))
    one, other = leading(_change(matrix), 5), leading(_change(-matrix), 5)
    np.testing.assert_allclose(one.vectors, other.vectors, atol=1e-9)
    for vector in one.vectors:
        assert vector[np.argmax(np.abs(vector))] > 0


def test_vectors_beyond_the_rank_are_dropped() -> None:
    """A change of rank 3 has three directions, however many are asked for."""
    matrix = _matrix(40, 50, np.array([3.0, 2.0, 1.0]), seed=3)
    assert len(leading(_change(matrix), 20).values) == 3


def test_an_unchanged_matrix_has_no_directions() -> None:
    """An unchanged matrix gives no direction."""
    assert not len(leading(_change(np.zeros((8, 8))), 5).values)
    assert not len(leading(_change(np.zeros((8, 2)), np.zeros((2, 8))), 5).values)


@pytest.mark.parametrize(("dtype", "roundoff"), [(np.float16, 2.0**-11), (np.float32, 2.0**-24)])
def test_rounding_of_stored_weights_gives_no_directions(
    dtype: type, roundoff: float, tmp_path: Path
) -> None:
    """A merge of rank 2 has two directions; matrices that were only rounded again have none."""
    rng = np.random.default_rng(4)
    name = "model.layers.1.mlp.down_proj.weight"
    exact = {n: w * rng.uniform(1, 2, w.shape) for n, w in llama_weights().items()}
    base = save_model(tmp_path / "base", {n: w.astype(dtype) for n, w in exact.items()})
    merged = {n: w * (1 + roundoff / 2 * rng.uniform(-1, 1, w.shape)) for n, w in exact.items()}
    merged[name] = exact[name] + rng.normal(size=(16, 2)) @ rng.normal(size=(2, 24))
    tuned = save_model(tmp_path / "tuned", {n: w.astype(dtype) for n, w in merged.items()})
    tuning = between(base, tuned)
    assert any(np.any(tuning.change(block, 1).factors[0]) for block in range(3))
    found = {place: len(leading(tuning.change(*place), 20).values) for place in tuning.places}
    assert found == {place: 2 if place == (1, 0) else 0 for place in tuning.places}
