"""What harmless text around a harmful one does to SIREN, and what windows of tokens give.

    python -m tests.truth.dilution

SIREN on MiniLM is trained on whole texts of five harm sources and five benign ones. Other harmful
texts of the harm sources, of at most ``LONGEST`` characters, are put in the middle of harmless
sentences of Dolly that were not trained on. The harmless texts have one more of these sentences
instead. The state is the mean over the whole text, over each window of N tokens, or over each
sentence; then the largest score counts. The threshold is calibrated with the same reading, for a
target of 5 %, on harmless texts of all lengths.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from layerguard.calibration.rows.folds import group_maxima
from layerguard.calibration.rows.leakage import prompt_group
from layerguard.calibration.siren import train
from layerguard.calibration.states.collect import RecordedStates, collect
from layerguard.calibration.thresholds import conformal
from layerguard.calibration.thresholds.threshold import published_threshold
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.detectors import REGISTRY, Detector
from layerguard.runtime.model.backbone import Backbone
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.text.request import request
from layerguard.runtime.types import Array, Tap, TokenBudget
from tests.bench import minilm
from tests.truth.operating_point import Scored
from tests.truth.public_sources import BENIGN, HARM, source_rows
from tests.truth.tables import keep

AROUND = (0, 10)
"""Numbers of harmless sentences."""

WINDOWS = (None, 64, "sentence")
"""Tokens of a window, or one window for each sentence; None is the whole text."""

HARMFUL, CLEAN, TARGET, LONGEST, SEED = 40, 40, 0.05, 300, 0
_TRAINED = {"harm": 60, "benign": 20}


def main() -> None:
    """Print and keep the table."""
    backbone = Backbone(Bundle.load(minilm.exported()), threads=1)
    params, harmful, sentences = trained(backbone), harmful_texts(), _sentences()
    rng = np.random.default_rng(SEED)
    texts = {
        (kind, around): _texts(own, around, sentences, rng)
        for around in AROUND
        for kind, own in (("harmful", harmful), ("clean", None), ("calibration", None))
    }
    lines = [line for tokens in WINDOWS for line in _lines(backbone, params, tokens, texts)]
    question = f"SIREN on harmful text among harmless sentences, target {TARGET:.0%}; MiniLM"
    keep("dilution_minilm", question, lines)


def _lines(
    backbone: Backbone,
    params: Mapping[str, Array],
    window: int | str | None,
    texts: Mapping[tuple[str, int], Sequence[Row]],
) -> Iterator[Mapping[str, Any]]:
    """A line for each number of harmless sentences, for one of ``WINDOWS``."""
    budget = TokenBudget("sliding", window) if isinstance(window, int) else None
    tap = Tap("content", "mean", budget=budget)
    siren = REGISTRY["siren"].bind(params, tap)
    scores = {}
    for key, some in texts.items():
        parts = [part for row in some for part in _sentences_of(row)]
        read = parts if window == "sentence" else some
        recorded = collect(backbone, read, tap, f"{window or 'whole'}: {key}")
        ids = {row.id: number for number, row in enumerate(some)}
        owner = np.array([ids[recorded.rows[index].id] for index in recorded.owner])
        scores[key] = scores_of(siren, recorded, owner)
    known = np.concatenate([scores["calibration", around] for around in AROUND])
    threshold = conformal.threshold(known, TARGET)
    for around in AROUND:
        bad, good = scores["harmful", around], scores["clean", around]
        yield {
            "window": f"{window} tokens" if isinstance(window, int) else window or "whole text",
            "harmless sentences": around,
            "threshold": threshold,
            "median score": float(np.median(bad)),
            "harmful flagged %": 100 * float((bad > threshold).mean()),
            "harmless flagged %": 100 * float((good > threshold).mean()),
            "AUROC": Scored(good, bad, good, ()).auroc(),
        }


def trained(backbone: Backbone) -> Mapping[str, Array]:
    """The parameters of SIREN, with a threshold that is not used."""
    rows = [row for name in HARM for row in source_rows(name, _TRAINED["harm"])]
    rows += [row for name in BENIGN for row in source_rows(name, _TRAINED["benign"])]
    found = collect(backbone, rows, REGISTRY["siren"].tap, "training rows")
    fitted = train(
        found.states,
        np.array([row.label for row in found.rows]),
        [prompt_group(row) for row in found.rows],
        sources=[row.domain or "" for row in found.rows],
    )
    return {**fitted.params, **published_threshold(0.0).arrays()}


def harmful_texts() -> list[str]:
    """Short harmful texts that SIREN was not trained on, as many from each source."""
    texts = []
    for name in HARM:
        known = {row.id for row in source_rows(name, _TRAINED["harm"])}
        new = (row for row in source_rows(name, 10 * _TRAINED["harm"]) if row.id not in known)
        own = [row.request.content() for row in new if row.label == 1]
        texts += [text for text in own if len(text) <= LONGEST][: HARMFUL // len(HARM)]
    return texts


def _sentences() -> list[str]:
    """Harmless sentences of rows that SIREN was not trained on."""
    known = {row.id for row in source_rows("Dolly", _TRAINED["benign"])}
    rows = [row for row in source_rows("Dolly", 1_000) if row.id not in known]
    parts = [part for row in rows for part in row.request.content().split(". ")]
    return [part.strip().rstrip(".") + "." for part in parts if 20 <= len(part) <= 200]


def _texts(
    harmful: Sequence[str] | None, around: int, sentences: Sequence[str], rng: np.random.Generator
) -> list[Row]:
    """Texts with ``around`` harmless sentences around a harmful text or another sentence."""
    middles = harmful or rng.choice(sentences, CLEAN).tolist()
    rows = []
    for number, middle in enumerate(middles):
        parts = rng.choice(sentences, around, replace=False).tolist()
        parts.insert(around // 2, middle)
        rows.append(Row(str(number), request(" ".join(parts)), None))
    return rows


def _sentences_of(row: Row) -> list[Row]:
    """A row for each sentence of a text, with its id."""
    parts = re.split(r"(?<=[.!?]) +", row.request.content())
    return [Row(row.id, request(part), None) for part in parts if part.strip()]


def scores_of(siren: Detector, recorded: RecordedStates[Array], owner: Array) -> Array:
    """The score of each text, which ``owner`` names: that of its worst window."""
    layers = np.ascontiguousarray(recorded.states.transpose(1, 0, 2))
    scores = np.array([reading.score for reading in siren.score_pooled(layers)])
    return group_maxima(scores, owner)


if __name__ == "__main__":
    main()
