"""Sampling: the candidates, their frequencies, and refused settings."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from layerguard.runtime.errors import InputError
from layerguard.runtime.generation.sampling import Sampler, likeliest

LOGITS = hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(-30, 30))


@given(LOGITS)
def test_temperature_zero_takes_the_likeliest_token(logits: np.ndarray) -> None:
    """Greedy sampling takes the first of the largest logits, whatever the settings."""
    assert Sampler(0.0, 3, 0.5, seed=1).draw(logits) == int(np.argmax(logits))


@given(LOGITS, st.integers(0, 50), st.floats(0.01, 1))
def test_the_likeliest_are_a_minimal_set(logits: np.ndarray, top_k: int, top_p: float) -> None:
    """Of the k most likely tokens, the fewest with the share top_p are kept."""
    tokens, shares = likeliest(logits, top_k, top_p)
    allowed = np.sort(logits)[::-1][: top_k or None]
    full = np.exp(allowed - allowed[0])
    full /= full.sum()
    assert np.array_equal(logits[tokens], allowed[: len(tokens)])
    assert shares.sum() == pytest.approx(1)
    assert len(tokens) == len(allowed) or full[: len(tokens)].sum() >= top_p - 1e-12
    assert len(tokens) == 1 or full[: len(tokens) - 1].sum() < top_p + 1e-12


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    """Frequencies are within five binomial deviations of softmax(logits / T)."""
    logits, temperature, draws = np.array([2.0, 1.0, 0.0, -1.0]), 0.7, 20_000
    expected = np.exp(logits / temperature)
    expected /= expected.sum()
    sampler = Sampler(temperature, seed=7)
    counts = np.bincount([sampler.draw(logits) for _ in range(draws)], minlength=4)
    deviation = np.sqrt(draws * expected * (1 - expected))
    assert (np.abs(counts - draws * expected) < 5 * deviation).all()


def test_a_seed_repeats_the_draws() -> None:
    """Two samplers of one seed agree; another seed differs somewhere in fifty draws."""
    logits = np.zeros(100)
    first, again, other = (Sampler(1.0, seed=seed) for seed in (3, 3, 4))
    drawn = [[sampler.draw(logits) for _ in range(50)] for sampler in (first, again, other)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_tokens_of_no_probability_are_never_drawn() -> None:
    """A logit of minus infinity is allowed, and its token is never sampled."""
    sampler = Sampler(1.0, seed=0)
    assert {sampler.draw(np.array([-np.inf, 0.0, -np.inf])) for _ in range(50)} == {1}


@pytest.mark.parametrize("bad", [[np.nan, 1.0], [-np.inf, -np.inf], [np.inf, 0.0]])
def test_logits_that_are_not_finite_are_refused(bad: list[float]) -> None:
    """NaN, and logits without a finite value, are refused."""
    with pytest.raises(InputError, match="not finite"):
        Sampler().draw(np.array(bad))


def test_every_wrong_setting_is_named() -> None:
    """The error lists all wrong settings at once."""
    with pytest.raises(InputError) as caught:
        Sampler(temperature=-1, top_k=-2, top_p=0, seed=-3)
    assert all(name in str(caught.value) for name in ("temperature", "top_k", "top_p", "seed"))
