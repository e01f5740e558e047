"""Detectors of one bundle together: those fitted now and those kept, on the same clean texts."""

from collections.abc import Collection, Iterable, Sequence

import numpy as np

from layerguard.calibration.collect import read_once
from layerguard.calibration.decision import FIXED, Column, Policy, Settled, settle
from layerguard.calibration.fingerprint import text_hashes
from layerguard.calibration.fitting import Fitted
from layerguard.calibration.leakage import prompt_group
from layerguard.calibration.scoring import Scorer
from layerguard.runtime.binding import bind_detectors
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.errors import InputError
from layerguard.runtime.model.backbone import Backbone
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.types import Array


def settle_together(
    bundle: Bundle,
    fitted: Sequence[Fitted],
    kept: dict[str, Column],
    clean: Sequence[Row],
    fitted_on: Iterable[Row],
    policy: Policy,
) -> Settled:
    """Set the thresholds of a bundle's detectors.

    Args:
        bundle: as it was before.
        fitted: detectors fitted now.
        kept: scores of the others, from ``kept_columns``.
        clean: rows whose texts set the thresholds.
        fitted_on: all rows that the fitted detectors saw.
        policy: who decides, and the target.

    Raises:
        CalibrationError: too few texts have a score from every detector.
    """
    calibrated = [item.calibrated for item in fitted]
    methods = {name: bundle.manifest.detectors[name].method for name in kept}
    methods |= {item.name: item.method for item in calibrated}
    return settle(
        kept | {item.calibrated.name: item.column for item in fitted},
        clean,
        {**bundle.params, **{item.name: item.params for item in calibrated}},
        policy,
        fixed={name for name, method in methods.items() if method in FIXED},
        seen=np.append(seen_texts(bundle), text_hashes(map(prompt_group, fitted_on))),
    )


class KeptDetectors:
    """Detectors that are not fitted anew, and their honest scores of clean texts.

    A text that the bundle's decision was calibrated on keeps its scores; one that no detector was
    fitted on is scored as it would be served; any other has none.

    Attributes:
        fresh: the rows that ``scorer`` has to read.
        scorer: scores them.
    """

    def __init__(self, bundle: Bundle, kept: Collection[str], rows: Sequence[Row]) -> None:
        """Find what is known.

        Args:
            bundle: as it was before.
            kept: names of the detectors.
            rows: clean rows.

        Raises:
            InputError: the bundle does not say what its detectors were fitted on.
        """
        self.names = sorted(kept)
        if kept and bundle.manifest.decision is None and not _imported(bundle, kept):
            raise InputError(
                f"{bundle.path} keeps {', '.join(self.names)} and does not say which texts they "
                "were fitted on, so their scores of these rows cannot be trusted; calibrate all "
                "detectors in one call"
            )
        texts = list(dict.fromkeys(map(prompt_group, rows)))
        codes = dict(zip(texts, text_hashes(texts).tolist(), strict=True))
        stored, seen = _stored(bundle), set(seen_texts(bundle).tolist())
        self._stored = {text: stored[code] for text, code in codes.items() if code in stored}
        unseen = (row for row in rows if codes[prompt_group(row)] not in seen)
        self.fresh = list(unseen) if kept else []
        bound = bind_detectors(bundle) if kept else {}
        self.scorer = Scorer({name: bound[name] for name in self.names})

    def texts(self) -> set[str]:
        """The texts that have scores, or get them if all fresh rows can be scored."""
        return self._stored.keys() | set(map(prompt_group, self.fresh))

    def columns(self) -> dict[str, Column]:
        """By detector, the scores, once ``scorer`` has read the fresh rows."""
        scored = self.scorer.columns()
        return {
            name: {text: own[name] for text, own in self._stored.items()} | scored[name]
            for name in self.names
        }


def kept_columns(
    bundle: Bundle,
    backbone: Backbone,
    kept: Collection[str],
    rows: Sequence[Row],
    faults: list[str],
) -> dict[str, Column]:
    """The columns of ``KeptDetectors``, from a pass of their own; see there for the errors.

    A sentence is added to ``faults`` for each row that could not be scored.
    """
    detectors = KeptDetectors(bundle, kept, rows)
    if detectors.fresh:
        faults += read_once(backbone, detectors.fresh, [detectors.scorer], "scoring rows")
    return detectors.columns()


def seen_texts(bundle: Bundle) -> Array:
    """Hashes of the texts that the bundle's detectors were fitted on, int64, as far as it knows."""
    return bundle.decision.get("seen", np.empty(0, np.int64))


def _stored(bundle: Bundle) -> dict[int, dict[str, float]]:
    """By a text's hash, the scores by detector that the decision was calibrated on."""
    card, arrays = bundle.manifest.decision, bundle.decision
    if card is None:
        return {}
    codes, scores = arrays["texts"].tolist(), arrays["scores"].tolist()
    return {
        code: dict(zip(card.detectors, row, strict=True))
        for code, row in zip(codes, scores, strict=True)
    }


def _imported(bundle: Bundle, kept: Collection[str]) -> bool:
    """Whether all of them were trained elsewhere, on other texts."""
    return all(bundle.manifest.detectors[name].method.startswith("imported") for name in kept)
