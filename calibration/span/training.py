"""Train the probe: logistic regression on windows of tokens.

A window is positive if at least half of its tokens lie in an injection, and negative if none do.
Since the score is a maximum, the windows that matter most are the best ones of clean texts: they
are found with a first probe, and a second one is trained with them as further negatives.

If only the text is labelled, its place is learned: the best window of the text by the last probe
counts as positive, and the probe is trained again (multiple-instance learning: Andrews,
Tsochantaridis and Hofmann, "Support vector machines for multiple-instance learning", 2003).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from layerguard.calibration.defaults import DEFAULT_TARGET_FPR
from layerguard.calibration.rows.folds import Groups, group_codes, group_maxima
from layerguard.calibration.rows.stratified import check_counts, stratified_folds
from layerguard.calibration.siren.probes import standardisation
from layerguard.calibration.span.sample import PLACE
from layerguard.calibration.stages import FittedParameters
from layerguard.calibration.states.blockwise import States, as_states
from layerguard.calibration.threads import one_thread
from layerguard.calibration.thresholds.threshold import conformal_threshold
from layerguard.runtime.errors import InputError
from layerguard.runtime.types import Array

STRENGTHS = (1e-4, 1e-3, 1e-2)
"""Candidates for C, the inverse of the penalty on standardised inputs."""

FOLDS = 4
WINDOWS = 12
"""Windows of each kind that training takes of a text."""

HARDEST = 3
"""Best windows of each clean text that are added as negatives."""

ROUNDS = 2
"""Trainings; four if places have to be learned."""


@dataclass(frozen=True, slots=True)
class _Probe:
    """Weights float64 [features] and bias."""

    weights: Array
    bias: float

    def scores(self, windows: Array) -> Array:
        """The logit of each window, float64 [windows]."""
        logits: Array = windows @ self.weights + self.bias
        return logits


@dataclass(frozen=True, slots=True)
class _Text:
    """The windows of one text.

    Attributes:
        windows: float32 [windows, features].
        inside: share of each window's tokens in an injection, [windows]; None: not known.
    """

    windows: Array
    inside: Array | None


def fit(
    windows: Array | States,
    inside: Array,
    layers: tuple[int, ...],
    window: int,
    groups: Groups = None,
    seed: int = 0,
    target_fpr: float = DEFAULT_TARGET_FPR,
) -> dict[str, Array]:
    """Train the probe on windows of labelled texts, and set its threshold.

    Args:
        windows: float32 [n, windows, 2 + layers x hidden], as ``WindowSample`` gives them.
        inside: [n, windows], the share of each window's tokens in an injection; 0 in clean texts,
            NaN throughout where a text holds one at a place that is not known.
        layers: the states that were read, ascending.
        window: tokens of a window.
        groups: n labels; rows with equal labels stay in one fold. None: every row is a group.
        seed: random seed.
        target_fpr: share of clean texts that may be flagged, in (0, 1).

    Returns:
        The frozen arrays by name:

            - ``layers``: int32 [K].
            - ``weights``: float32 [K, hidden].
            - ``bias``: float64.
            - ``window``: int32, tokens.
            - ``threshold``, ``clean_scores``, ``target_fpr``, ``fpr_interval``: as for the other
              detectors, from the held-out scores of clean texts.

    Raises:
        CalibrationError: too few texts, or too few for the target.
        InputError: an argument has the wrong shape.
    """
    fitted = train(windows, inside, layers, window, groups, seed)
    labels = _labels(np.asarray(inside))
    codes = group_codes(groups, len(labels))
    clean = group_maxima(fitted.held_out[labels == 0], codes[labels == 0])
    return {**fitted.params, **conformal_threshold(clean, target_fpr).arrays()}


def train(
    windows: Array | States,
    inside: Array,
    layers: tuple[int, ...],
    window: int,
    groups: Groups = None,
    seed: int = 0,
    used: Array | None = None,
    strengths: Sequence[float] = STRENGTHS,
) -> FittedParameters:
    """Return parameters and held-out scores; see ``fit`` for the arguments and errors.

    ``used`` is bool [n], False for texts that are scored but not trained on. ``strengths`` are the
    candidates for C.
    """
    inside = np.asarray(inside, np.float64)
    states = as_states(windows)
    if inside.shape != states.shape[:2]:
        raise InputError(
            f"inside: found {list(inside.shape)}; expected {list(states.shape[:2])}, one for each "
            "window"
        )
    labels = _labels(inside)
    chosen = np.ones(len(labels), dtype=bool) if used is None else used
    codes = group_codes(groups, len(labels))
    check_counts("span", labels[chosen], codes[chosen])
    texts = _texts(states, inside)
    with one_thread():
        scores, held_out = {}, {}
        for strength in strengths:
            held_out[strength] = _cross_validated(texts, labels, codes, chosen, strength, seed)
            scores[strength] = roc_auc_score(labels[chosen], held_out[strength][chosen])
        best = max(strengths, key=lambda strength: scores[strength])
        probe = _trained([t for t, c in zip(texts, chosen, strict=True) if c], best, seed)
    params = {
        "layers": np.array(layers, np.int32),
        "weights": probe.weights.reshape(len(layers), -1).astype(np.float32),
        "bias": np.array(probe.bias),
        "window": np.array(window, np.int32),
    }
    settings = {
        "folds": FOLDS,
        "strength": best,
        "injected": int(labels[chosen].sum()),
        "places_known": sum(t.inside is not None and bool(t.inside.any()) for t in texts),
        "held_out_auroc": round(float(scores[best]), 6),
    }
    return FittedParameters(params, held_out[best], settings)


def window_scores(params: Mapping[str, Array], windows: States) -> Array:
    """The score of each text, its best window, float64 [n]; windows as ``fit`` takes them."""
    probe = _Probe(params["weights"].astype(np.float64).ravel(), float(params["bias"]))
    kept = (
        text[text[:, 1] > 0, PLACE:]
        for _, block in windows.blocks()
        for text in block.swapaxes(0, 1)
    )
    return np.array([probe.scores(text).max() for text in kept])


def _labels(inside: Array) -> Array:
    """1 for texts with an injection, int64 [n]."""
    labels: Array = (inside != 0).any(axis=1).astype(np.int64)
    return labels


def _texts(states: States, inside: Array) -> list[_Text]:
    """Each text's windows, without unused rows."""
    texts = []
    for rows, block in states.blocks():
        for windows, shares in zip(block.swapaxes(0, 1), inside[rows], strict=True):
            kept = windows[:, 1] > 0
            known = None if np.isnan(shares[kept]).any() else shares[kept]
            texts.append(_Text(windows[kept, PLACE:].copy(), known))
    return texts


def _cross_validated(
    texts: list[_Text], labels: Array, codes: Array, used: Array, strength: float, seed: int
) -> Array:
    """The held-out score of every text, float64 [n]; its group was not trained on."""
    held_out = np.empty(len(texts))
    for training, held in stratified_folds(labels, codes, FOLDS, seed):
        probe = _trained([texts[i] for i in training if used[i]], strength, seed)
        held_out[held] = [probe.scores(texts[i].windows).max() for i in held]
    return held_out


def _trained(texts: list[_Text], strength: float, seed: int) -> _Probe:
    rng = np.random.default_rng(seed)
    clean = [text for text in texts if text.inside is not None and not text.inside.any()]
    known = [text for text in texts if text.inside is not None and text.inside.any()]
    unknown = [text for text in texts if text.inside is None]
    negative = [_some(text.windows, rng) for text in clean]
    positive = []
    for text in known:
        assert text.inside is not None
        positive.append(_some(text.windows[text.inside >= 0.5 * text.inside.max()], rng))
        negative.append(_some(text.windows[text.inside == 0], rng))
    learned = [] if known else [_some(text.windows, rng) for text in unknown]
    probe = _regression(positive + learned, negative, strength)
    hardest: list[Array] = []
    for _ in range((2 * ROUNDS if unknown else ROUNDS) - 1):
        hardest += [_best(probe, text.windows, HARDEST) for text in clean]
        learned = [_best(probe, text.windows, 1) for text in unknown]
        probe = _regression(positive + learned, negative + hardest, strength)
    return probe


def _some(windows: Array, rng: np.random.Generator) -> Array:
    return windows[rng.permutation(len(windows))[:WINDOWS]]


def _best(probe: _Probe, windows: Array, count: int) -> Array:
    return windows[np.argsort(-probe.scores(windows), kind="stable")[:count]]


def _regression(positive: list[Array], negative: list[Array], strength: float) -> _Probe:
    x = np.concatenate([*positive, *negative])
    labels = np.zeros(len(x), np.int64)
    labels[: sum(map(len, positive))] = 1
    mean, deviation = standardisation(x)
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=200)
    model.fit((x - mean) / deviation, labels)
    weights: Array = model.coef_[0] / deviation
    return _Probe(weights, float(model.intercept_[0] - weights @ mean))
