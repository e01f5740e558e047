"""Training of the probe: it finds injected windows, with and without their places."""

import numpy as np
import pytest

from layerguard.calibration.span.sample import MOST_WINDOWS, WindowSample
from layerguard.calibration.span.training import fit, train
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.errors import CalibrationError, InputError
from layerguard.runtime.types import Array
from tests.reference import span as reference

LAYERS, WIDTH, WINDOW, TOKENS = (1, 2), 6, 5, 40


def _texts(count: int, seed: int) -> tuple[list[Array], Array, Array]:
    """States [3, tokens, width] of texts, half with an injection of 8 tokens; labels and places."""
    rng = np.random.default_rng(seed)
    states = [rng.normal(size=(3, TOKENS, WIDTH)).astype(np.float32) for _ in range(count)]
    labels = np.arange(count) % 2
    places = rng.integers(0, TOKENS - 8, count)
    for text, label, place in zip(states, labels, places, strict=True):
        text[1:, place : place + 8, 0] += 3.0 * label
    return states, labels, places


def _samples(states: list[Array]) -> Array:
    sample = WindowSample(LAYERS, WINDOW)
    return np.stack([sample.windows(text) for text in states])


def _inside(windows: Array, labels: Array, places: Array) -> Array:
    """The share of each window inside of the injection."""
    first, last = windows[..., 0], windows[..., 1]
    start = places[:, None]
    overlap = np.minimum(last, start + 8) - np.maximum(first, start)
    return labels[:, None] * np.clip(overlap, 0, None) / np.maximum(last - first, 1)


@pytest.mark.parametrize("tokens", [1, WINDOW - 1, WINDOW, TOKENS, 400])
def test_a_sample_is_the_mean_state_of_each_window(tokens: int) -> None:
    """Of a long text evenly spaced windows, the first and the last among them."""
    states = np.random.default_rng(0).normal(size=(3, tokens, WIDTH)).astype(np.float32)
    found = WindowSample(LAYERS, WINDOW).windows(states)
    used = found[found[:, 1] > 0]
    assert len(used) == min(MOST_WINDOWS, max(1, tokens - WINDOW + 1))
    assert used[0, 0] == 0
    assert used[-1, 1] == tokens
    for row in used:
        first, last = row[:2].astype(int)
        whole = np.concatenate([states[layer, first:last] for layer in LAYERS], axis=1)
        np.testing.assert_allclose(row[2:], whole.mean(axis=0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("known", [True, False])
def test_the_best_window_lies_in_the_injection(*, known: bool) -> None:
    """New texts are told apart and their windows overlap it, also if training knew no place."""
    states, labels, places = _texts(80, 1)
    windows = _samples(states)
    shares = _inside(windows, labels, places)
    if not known:
        shares[labels == 1] = np.nan
    params = fit(windows, shares, LAYERS, WINDOW, target_fpr=0.1)
    detector = REGISTRY["span"].bind(params)
    probe = detector.tap.probe
    assert probe is not None
    new, new_labels, new_places = _texts(40, 2)
    flags = np.array([detector.score(list(text)).flagged for text in new])
    assert flags[new_labels == 1].mean() > 0.9
    assert flags[new_labels == 0].mean() < 0.3
    for text, label, place in zip(new, new_labels, new_places, strict=True):
        first, end = probe.place(probe.windows(text))
        assert not label or (first < place + 8 and end > place)


def test_the_detector_scores_as_the_formula_says() -> None:
    """With the trained parameters, whose held-out scores come from the same formula."""
    states, labels, places = _texts(40, 3)
    windows = _samples(states)
    params = fit(windows, _inside(windows, labels, places), LAYERS, WINDOW, target_fpr=0.2)
    detector = REGISTRY["span"].bind(params)
    for text in states[:5]:
        logits = reference.logits(text, params["weights"], LAYERS, float(params["bias"]))
        expected, _ = reference.best_window(logits, WINDOW)
        assert detector.score(list(text)).score == pytest.approx(expected, abs=1e-4)


def test_held_out_scores_do_not_know_their_text() -> None:
    """Labels at random give an AUROC near one half on held-out texts, never near one."""
    states, labels, places = _texts(60, 4)
    plain = [np.random.default_rng(i).normal(size=text.shape) for i, text in enumerate(states)]
    windows = _samples(plain)
    found = train(windows, _inside(windows, labels, places), LAYERS, WINDOW)
    assert 0.3 < found.settings["held_out_auroc"] < 0.72


def test_texts_that_are_not_used_are_scored_only() -> None:
    """They do not change the probe, and have a score."""
    states, labels, places = _texts(60, 5)
    windows = _samples(states)
    shares = _inside(windows, labels, places)
    used = np.arange(60) < 50
    some = train(windows, shares, LAYERS, WINDOW, used=used)
    windows[55, :, 2:] += 100
    other = train(windows, shares, LAYERS, WINDOW, used=used)
    np.testing.assert_array_equal(some.params["weights"], other.params["weights"])
    assert np.isfinite(other.held_out).all()
    assert some.held_out[55] != other.held_out[55]


def test_too_little_is_refused() -> None:
    """Too few injections, or shares of another shape."""
    states, labels, places = _texts(12, 6)
    windows = _samples(states)
    with pytest.raises(CalibrationError, match="span found 6 clean texts"):
        train(windows, _inside(windows, labels, places), LAYERS, WINDOW)
    with pytest.raises(InputError, match="inside: found"):
        train(windows, np.zeros((3, 3)), LAYERS, WINDOW)
