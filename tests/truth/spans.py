"""Where in a text is the injection? The window of span, beside three baselines on the same rows.

    python -m tests.truth.spans [minilm] [smollm2]

Trained on Dolly documents with the project's payloads, half of them in forms such as JSON, and on
its clean prompts. BIPIA, InjecAgent, deepset, NotInject and XSTest are whole sources held out.
``python -m tests.truth.spans layers`` cross-validates the layers on the training texts. A second
probe also learns from the other sources, never from the one that is scored. Recall is at the share
of false alarms realised on the source's own clean texts. False alarms on NotInject and XSTest,
which hold no injection, are at the thresholds for the clean texts of the first three sources
together.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from layerguard.calibration.rows.leakage import words_group
from layerguard.calibration.span.calibrator import WINDOW
from layerguard.calibration.span.sample import WindowSample
from layerguard.calibration.span.training import STRENGTHS, train
from layerguard.calibration.stages import FittedParameters
from layerguard.runtime.kernels import ProbeKernel
from layerguard.runtime.types import Array
from tests.bench import minilm
from tests.bench.minilm import CACHE, run_command
from tests.bench.shared_models import need_shared
from tests.bench.smollm2 import model_file
from tests.truth import span_rows
from tests.truth.span_states import Read, read
from tests.truth.tables import keep

INJECTED = ("bipia_lcf", "injecagent", "deepset_prompt_injections")
HARMLESS = ("notinject", "xstest")
SHARES = (0.01, 0.05)


@dataclass(frozen=True, slots=True)
class Model:
    """A model of the table.

    Attributes:
        kept: the states that are read and kept.
        probe: those of them that the probe reads.
        most: texts of each source and label.
        bundle: where its bundle is; exported on first use.
    """

    kept: tuple[int, ...]
    probe: tuple[int, ...]
    most: int
    bundle: Callable[[], Path]


def _smollm2() -> Path:
    bundle = CACHE / "smollm2"
    if not (bundle / "manifest.json").is_file():
        run_command("export", str(model_file()), "-o", str(bundle), "--decode", "no")
    return bundle


MODELS: Mapping[str, Model] = {
    "minilm": Model((2, 3, 4, 5, 6), (3, 4), 100, lambda: minilm.exported("--mode", "states")),
    "smollm2": Model((8, 12, 16, 20), (16, 20), 40, _smollm2),
}

Scores = tuple[Array, list[bool]]
"""The score of each text, and for those with a known place whether the window overlaps it."""


def main(names: Sequence[str]) -> None:
    """Print the table of the models, or the cross-validation of layers."""
    need_shared()
    if names[:1] == ["layers"]:
        for name in names[1:] or MODELS:
            keep(f"span_layers_{name}", "Cross-validation on training texts", list(_layers(name)))
        return
    question = "Injections on sources held out: recall at realised false alarms, in per cent"
    for name in names or MODELS:
        keep(f"spans_{name}", question, list(_lines(name)))


def _reads(name: str) -> tuple[list[Read], list[Read]]:
    """The training texts and the held-out texts of a model."""
    model = MODELS[name]
    training = read(model.bundle, f"{name}-training", span_rows.training(), model.kept)
    texts = span_rows.held_out(model.most)
    return training, read(model.bundle, f"{name}-held_out_{model.most}", texts, model.kept)


def _lines(name: str) -> Iterator[dict[str, Any]]:
    model = MODELS[name]
    training, held_out = _reads(name)
    single = max(model.kept, key=lambda layer: _mean_auroc(training, model, (layer,)))
    strength = _train(training, model, model.probe).settings["strength"]

    @cache
    def probe(without: str, *, others: bool) -> ProbeKernel:
        """Trained on our texts, or also on the sources other than ``without``."""
        sources = set(INJECTED) - {without} if others else set()
        rows = [*training, *(row for row in held_out if row.text.source in sources)]
        return _probe(rows, model, strength)

    methods: dict[str, Callable[[list[Read], str], Scores]] = {
        "span": lambda rows, _: _windows(probe("", others=False), rows, model),
        "span, other sources too": lambda rows, source: _windows(
            probe(source if source in INJECTED else "", others=True), rows, model
        ),
        "mean over tokens": lambda rows, _: (_mean(training, rows, model, model.probe), []),
        f"mean, layer {single}": lambda rows, _: (_mean(training, rows, model, (single,)), []),
        "TF-IDF": lambda rows, _: (_tfidf(training, rows), []),
    }
    for method, score in methods.items():
        yield from ({"model": name, "method": method, **line} for line in _table(held_out, score))


def _table(
    held_out: Sequence[Read], score: Callable[[list[Read], str], Scores]
) -> Iterator[dict[str, Any]]:
    """The lines of one method, one for each source."""
    pooled = []
    for source in INJECTED:
        rows = [row for row in held_out if row.text.source == source]
        scores, overlaps = score(rows, source)
        labels = np.array([row.text.label for row in rows])
        pooled.append(scores[labels == 0])
        yield {
            "source": source,
            "clean": int((labels == 0).sum()),
            "injected": int(labels.sum()),
            "auroc": round(float(roc_auc_score(labels, scores)), 3),
            **{f"recall at {share:.0%}": _recall(labels, scores, share) for share in SHARES},
            "window on payload": _per_cent(overlaps) if overlaps else None,
        }
    clean = np.concatenate(pooled)
    for source in HARMLESS:
        rows = [row for row in held_out if row.text.source == source]
        scores, _ = score(rows, source)
        alarms = {
            f"false alarms at {share:.0%}": _per_cent(scores > _threshold(clean, share))
            for share in SHARES
        }
        yield {"source": source, "clean": len(rows), **alarms}


def _layers(name: str) -> Iterator[dict[str, Any]]:
    """Held-out AUROC on the training texts, by the layers that the probe reads."""
    model = MODELS[name]
    training = read(model.bundle, f"{name}-training", span_rows.training(), model.kept)
    pairs = list(zip(model.kept[:-1], model.kept[1:], strict=True))
    for layers in [*((layer,) for layer in model.kept), *pairs]:
        settings = _train(training, model, layers).settings
        shown = {key: settings[key] for key in ("strength", "held_out_auroc")}
        yield {"model": name, "layers": str(layers), **shown}


def _train(
    rows: Sequence[Read],
    model: Model,
    layers: tuple[int, ...],
    strengths: Sequence[float] = STRENGTHS,
) -> FittedParameters:
    places = [model.kept.index(layer) for layer in layers]
    sample = WindowSample(tuple(range(len(layers))), WINDOW)
    windows = np.stack([sample.windows(row.states[places].astype(np.float32)) for row in rows])
    inside = np.stack(list(map(_shares, rows, windows)))
    groups = [words_group(row.text.words) or row.text.text for row in rows]
    return train(windows, inside, layers, WINDOW, groups, strengths=strengths)


def _shares(row: Read, windows: Array) -> Array:
    """The share of each window's tokens in the injection; NaN if its place is not known."""
    if row.text.label and row.text.span is None:
        return np.full(len(windows), np.nan)
    first, last = windows[:, 0].astype(int), windows[:, 1].astype(int)
    sums = np.append(0, np.cumsum(row.inside))
    shares: Array = (sums[last] - sums[first]) / np.maximum(last - first, 1)
    return shares


def _probe(rows: Sequence[Read], model: Model, strength: float) -> ProbeKernel:
    params = _train(rows, model, model.probe, (strength,)).params
    numbers = np.arange(len(model.probe))
    return ProbeKernel(params["weights"], numbers, float(params["bias"]), WINDOW)


def _windows(probe: ProbeKernel, rows: Sequence[Read], model: Model) -> Scores:
    places = [model.kept.index(layer) for layer in model.probe]
    scores, overlaps = [], []
    for row in rows:
        windows = probe.windows(row.states[places])
        scores.append(float(windows[0]))
        if row.inside.any():
            overlaps.append(bool(row.inside[slice(*probe.place(windows))].any()))
    return np.array(scores), overlaps


def _means(rows: Sequence[Read], model: Model, layers: tuple[int, ...]) -> Array:
    """Mean states, float64 [rows, layers x hidden]."""
    places = [model.kept.index(layer) for layer in layers]
    return np.stack([row.states[places].mean(axis=1, dtype=np.float64).ravel() for row in rows])


def _classifier() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=500))


def _mean_auroc(training: Sequence[Read], model: Model, layers: tuple[int, ...]) -> float:
    labels = np.array([row.text.label for row in training])
    x = _means(training, model, layers)
    found = cross_val_predict(_classifier(), x, labels, method="decision_function")
    return float(roc_auc_score(labels, found))


def _mean(
    training: Sequence[Read], rows: Sequence[Read], model: Model, layers: tuple[int, ...]
) -> Array:
    labels = [row.text.label for row in training]
    fitted = _classifier().fit(_means(training, model, layers), labels)
    scores: Array = fitted.decision_function(_means(rows, model, layers))
    return scores


def _tfidf(training: Sequence[Read], rows: Sequence[Read]) -> Array:
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    fitted = make_pipeline(words, LogisticRegression(C=10, max_iter=1000))
    fitted.fit([row.text.text for row in training], [row.text.label for row in training])
    scores: Array = fitted.decision_function([row.text.text for row in rows])
    return scores


def _threshold(clean: Array, share: float) -> float:
    """The threshold above which at most this share of the clean scores lies."""
    return float(np.sort(clean)[::-1][int(share * len(clean))])


def _recall(labels: Array, scores: Array, share: float) -> float:
    return _per_cent(scores[labels == 1] > _threshold(scores[labels == 0], share))


def _per_cent(hits: Sequence[bool] | Array) -> float:
    return round(100 * float(np.mean(hits)), 1)


if __name__ == "__main__":
    main(sys.argv[1:])
