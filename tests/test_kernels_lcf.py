"""The LCF kernel against its float64 oracle, the golden vectors and its own symmetries."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import tolerances
from tests.kernel_cases import DEPTH, WIDTHS, Array, LcfModel, lcf_model, states
from tests.reference import lcf as reference
from tests.scorers import LcfKernel


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("rows", [1, 5])
def test_scores_agree_with_the_oracle(width: int, rows: int) -> None:
    """The z and the score are within the rounding that the float32 steps can cause."""
    model, h = lcf_model(width), states(width, rows)
    scores, z = model.kernel().score(h)
    lengths = reference.lengths(h, model.mu, model.sigma)
    expected_z = reference.z_scores(lengths, model.score_mean, model.score_scale)
    expected = reference.scores(expected_z, model.centre, model.precision)
    mu, sigma = model.mu.astype(np.float64), model.sigma.astype(np.float64)
    for row in range(rows):
        difference = np.diff(h[:, row].astype(np.float64), axis=0)
        error = tolerances.lcf_length(difference, mu, sigma)
        assert (np.abs(z[row] - expected_z[row]) <= error / model.score_scale + 1e-12).all()
        bound = tolerances.lcf_score(error, model.score_scale, model.precision)
        assert abs(scores[row] - expected[row]) <= bound


@pytest.mark.shared
def test_golden_vectors(shared: Path) -> None:
    """The authors' z, scores and threshold side are reproduced."""
    golden = json.loads((shared / "golden" / "lcf_golden.json").read_text(encoding="utf-8"))
    kernel = LcfKernel(
        mu=golden["layer_delta_mu"],
        sigma=golden["layer_delta_sigma"],
        score_mean=golden["layer_score_mu"],
        score_scale=golden["layer_score_sigma"],
        centre=golden["agg_mu"],
        precision=golden["agg_precision"],
    )
    for deltas, z_name in (("test_deltas", "test_z"), ("cal_deltas", "cal_z")):
        # The vectors give differences of states. A kernel row of two states holds one exactly.
        delta = np.asarray(golden[deltas], np.float32)
        expected = np.asarray(golden[z_name])
        for layer in range(delta.shape[1]):
            h = np.zeros((delta.shape[1] + 1, *delta[:, 0].shape), np.float32)
            h[layer + 1] = delta[:, layer]
            _, z = kernel.score(h)
            np.testing.assert_allclose(
                z[:, layer], expected[:, layer], rtol=tolerances.GOLDEN, atol=tolerances.GOLDEN
            )
    h = np.zeros((delta.shape[1] + 1, len(golden["test_deltas"]), delta.shape[2]), np.float32)
    h[1:] = np.cumsum(np.asarray(golden["test_deltas"], np.float32).swapaxes(0, 1), axis=0)
    scores, _ = kernel.score(h)
    np.testing.assert_allclose(scores, golden["test_scores"], rtol=tolerances.GOLDEN)


@given(width=st.sampled_from(WIDTHS), seed=st.integers(0, 2**32 - 1))
def test_a_row_at_the_centre_scores_zero(width: int, seed: int) -> None:
    """A row whose z is the centre scores exactly 0, and one whose differences are mu has S = 0."""
    model, h = lcf_model(width, seed=seed), states(width, 1, seed=seed)
    _, z = model.kernel().score(h)
    at_centre = LcfKernel(**{**vars(model), "centre": z[0]})
    assert at_centre.score(h)[0] == 0.0
    on_mean = np.concatenate([np.zeros_like(h[:1]), np.zeros_like(h[1:])])
    flat = LcfKernel(**{**vars(model), "mu": np.zeros_like(model.mu)})
    np.testing.assert_array_equal(flat.score(on_mean)[1][0], -model.score_mean / model.score_scale)


@given(width=st.sampled_from(WIDTHS), seed=st.integers(0, 2**32 - 1), exponent=st.integers(-20, 20))
def test_scaling_by_powers_of_two_is_exact(width: int, seed: int, exponent: int) -> None:
    """States, mu and sigma in another unit give the same bits; four times P doubles the score."""
    model, h = lcf_model(width, seed=seed), states(width, 2, seed=seed)
    unit = np.float32(2.0**exponent)
    scores, z = model.kernel().score(h)
    scaled = LcfKernel(**{**vars(model), "mu": model.mu * unit, "sigma": model.sigma * unit})
    np.testing.assert_array_equal(scaled.score(h * unit)[1], z)
    quadrupled = LcfKernel(**{**vars(model), "precision": model.precision * 4})
    np.testing.assert_array_equal(quadrupled.score(h)[0], 2 * scores)


@given(width=st.sampled_from(WIDTHS), seed=st.integers(0, 2**32 - 1), data=st.data())
def test_order_of_dimensions_and_layers_does_not_matter(
    width: int, seed: int, data: st.DataObject
) -> None:
    """Permuting dimensions everywhere, or layers with their parameters, keeps the score."""
    model = lcf_model(width, seed=seed)
    rng = np.random.default_rng(seed)
    # Differences of small integers: exact, so that layers may change places.
    delta = rng.integers(-8, 9, (DEPTH, 2, width)).astype(np.float32)
    score = score_of_differences(model, delta)
    columns = np.array(data.draw(st.permutations(range(width))))
    permuted = {**vars(model), "mu": model.mu[:, columns], "sigma": model.sigma[:, columns]}
    np.testing.assert_allclose(
        score_of_differences(LcfKernel(**permuted), delta[..., columns]),
        score,
        rtol=1e3 * tolerances.lanes(width),
    )
    order = np.array(data.draw(st.permutations(range(DEPTH))))
    permuted = {name: value[order] for name, value in vars(model).items()}
    permuted["precision"] = model.precision[np.ix_(order, order)]
    np.testing.assert_allclose(
        score_of_differences(LcfKernel(**permuted), delta[order]), score, rtol=1e-9
    )


def score_of_differences(model: LcfModel | LcfKernel, delta: Array) -> Array:
    """Scores of states that start at 0 and differ by ``delta``, (layers, rows, width)."""
    kernel = model if isinstance(model, LcfKernel) else model.kernel()
    h = np.concatenate([np.zeros_like(delta[:1]), np.cumsum(delta, axis=0, dtype=np.float32)])
    return kernel.score(np.ascontiguousarray(h))[0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("width", [1, 33, 384])
def test_not_finite_is_never_lost(value: float, width: int) -> None:
    """One bad value anywhere makes its row's score not finite, and no other row's."""
    kernel = lcf_model(width).kernel()
    for layer in range(DEPTH + 1):
        h = states(width, 3)
        h[layer, 1, width // 2] = value
        scores, z = kernel.score(h)
        assert not np.isfinite(scores[1])
        assert not np.isfinite(z[1]).all()
        assert np.isfinite(scores[[0, 2]]).all()


def test_an_indefinite_precision_scores_nan() -> None:
    """A negative quadratic form has no root: it fails closed instead of looking like the centre."""
    kernel = LcfKernel(**{**vars(lcf_model(8)), "precision": -np.eye(DEPTH)})
    assert np.isnan(kernel.score(states(8, 2))[0]).all()


def test_no_rows_score_to_nothing() -> None:
    """An empty batch is an empty answer."""
    scores, z = lcf_model(8).kernel().score(states(8, 0))
    assert scores.shape == (0,)
    assert z.shape == (0, DEPTH)
