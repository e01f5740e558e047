"""Detectors of a bundle that are not fitted again, and their scores of clean texts."""

from collections.abc import Collection, Sequence

import numpy as np

from layerguard.calibration.rows.leakage import prompt_group
from layerguard.calibration.rows.text_hashes import hashes_of, own_hashes
from layerguard.calibration.thresholds.guard_thresholds import TextScores
from layerguard.calibration.thresholds.text_scores import TextScorer
from layerguard.runtime.binding import bind_detectors
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.errors import InputError
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.types import Array


class KeptDetectors:
    """Detectors that are not fitted again, and their scores of clean texts.

    A text with stored scores from the bundle's decision keeps them. A text that no detector was
    fitted on is scored with the bundle's detectors. Any other text has no scores.

    Attributes:
        fresh: the rows that ``scorer`` has to read.
        scorer: scores the rows of ``fresh``.
        harmful: scores rows of label 1, for the detection that calibration reports.
        hashes: hashes texts as the bundle's own; with the user's own key if no detector is kept.
        seen: hashes of the texts that the detectors were fitted on, int64.
    """

    def __init__(self, bundle: Bundle, kept: Collection[str], rows: Sequence[Row]) -> None:
        """Look up the stored scores, and the rows that have to be scored.

        Args:
            bundle: the bundle before the calibration.
            kept: names of the detectors that are not fitted again.
            rows: clean rows.

        Raises:
            InputError: the bundle does not record what its detectors were fitted on.
        """
        self.names = sorted(kept)
        if kept and bundle.manifest.decision is None and not _imported(bundle, kept):
            raise InputError(
                f"{bundle.path} does not record the texts that {', '.join(self.names)} were fitted "
                "on, so their scores of these rows may be biased; calibrate all detectors in one "
                "call"
            )
        texts = list(dict.fromkeys(map(prompt_group, rows)))
        self.hashes = hashes_of(bundle) if kept else own_hashes()
        self.seen = seen_texts(bundle) if kept else np.empty(0, np.int64)
        self._seen = set(self.seen.tolist())
        codes = dict(zip(texts, self.hashes.of(texts).tolist(), strict=True))
        stored = _stored(bundle) if kept else {}
        self._stored = {text: stored[code] for text, code in codes.items() if code in stored}
        unseen = (row for row in rows if codes[prompt_group(row)] not in self._seen)
        self.fresh = list(unseen) if kept else []
        bound = bind_detectors(bundle) if kept else {}
        self.scorer = TextScorer({name: bound[name] for name in self.names})
        self.harmful = TextScorer({name: bound[name] for name in self.names})

    def seen_among(self, rows: Sequence[Row]) -> frozenset[str]:
        """The texts of some rows that a detector of the bundle was fitted on."""
        texts = list({prompt_group(row) for row in rows})
        codes = self.hashes.of(texts).tolist()
        return frozenset(
            text for text, code in zip(texts, codes, strict=True) if code in self._seen
        )

    def texts(self) -> set[str]:
        """The texts with stored scores, and the texts of the rows of ``fresh``."""
        return self._stored.keys() | set(map(prompt_group, self.fresh))

    def scores(self) -> dict[str, TextScores]:
        """The scores by detector, after ``scorer`` has read ``fresh``."""
        scored = self.scorer.by_detector()
        return {
            name: {text: own[name] for text, own in self._stored.items()} | scored[name]
            for name in self.names
        }


def seen_texts(bundle: Bundle) -> Array:
    """Hashes of the texts that the bundle's detectors were fitted on, int64, if recorded."""
    return bundle.decision.get("seen", np.empty(0, np.int64))


def _stored(bundle: Bundle) -> dict[int, dict[str, float]]:
    """The scores that the decision was calibrated on, by hash of the text and by detector."""
    card, arrays = bundle.manifest.decision, bundle.decision
    if card is None:
        return {}
    codes, scores = arrays["texts"].tolist(), arrays["scores"].tolist()
    return {
        code: dict(zip(card.detectors, row, strict=True))
        for code, row in zip(codes, scores, strict=True)
    }


def _imported(bundle: Bundle, kept: Collection[str]) -> bool:
    """Whether all kept detectors are imported heads, which were trained on other texts."""
    return all(bundle.manifest.detectors[name].method.startswith("imported") for name in kept)
