"""A fitted drift monitor as an HTML page."""

from collections.abc import Iterator

import numpy as np

from layerguard.calibration.drift.monitor import FittedMonitor
from layerguard.calibration.report.charts import Interval, interval_chart
from layerguard.calibration.report.page import Fact, Paragraph, Section, Table, page
from layerguard.runtime.drift.manifest import Candidate
from layerguard.runtime.types import Array

CANDIDATE_HEADER = ("leave one perturbation out", "balanced accuracy", "AUROC", "FNR", "FPR")

_NOTE = (
    "Each line is the range of one group of calibration checkpoints, and the dot is its median. "
    "The first group, checkpoints at or below tau, is what is normal for fine-tuning that stays "
    "harmless: layerguard drift check says which traits of a new checkpoint lie outside it. "
    "Groups that overlap in every trait cannot be told apart by one trait alone."
)
_HELD_OUT = (
    "Each checkpoint is predicted by a fit to all other perturbations. FNR is the share of "
    "checkpoints above tau without an alarm, FPR the share of the others with one."
)


def html_page(fitted: FittedMonitor) -> str:
    """The whole page."""
    manifest = fitted.monitor.manifest
    card = manifest.calibration
    chosen = next(c for c in card.candidates if c.regressor == manifest.regressor)
    tau = f"{100 * manifest.threshold:g} %"
    facts = [
        Fact("Checkpoints", str(card.checkpoints), f"{fitted.checkpoints_above} above tau, {tau}"),
        Fact("Balanced accuracy", f"{100 * chosen.balanced_accuracy:.1f} %", chosen.regressor),
        Fact("Layer", str(manifest.layer), f"of {manifest.base.model.total_layers}"),
        Fact("Perturbations", str(len(card.perturbations)), ", ".join(card.perturbations)),
    ]
    traits = Table(
        ("trait", "probe accuracy", f"normal range, at most {tau}", f"above {tau}"),
        list(_trait_rows(fitted)),
    )
    chart = interval_chart(
        "Drift along each trait",
        list(_intervals(fitted)),
        x_label="drift, share of the base's mean state length",
        legend=(f"at most {tau}", f"above {tau}"),
    )
    sections = [
        Section("Summary", facts),
        Section("What is normal for a harmless fine-tune", [Paragraph(_NOTE), chart, traits]),
        Section(
            "Regressors",
            [Paragraph(_HELD_OUT), Table(CANDIDATE_HEADER, candidate_rows(fitted))],
        ),
    ]
    return page(f"Drift monitor {fitted.monitor.id} of {manifest.base.model.id}", sections)


def candidate_rows(fitted: FittedMonitor) -> list[list[str]]:
    """The held-out metrics of every regressor as text."""
    manifest = fitted.monitor.manifest
    return [_candidate(item, manifest.regressor) for item in manifest.calibration.candidates]


def _candidate(item: Candidate, frozen: str) -> list[str]:
    return [
        item.regressor + (" (frozen)" if item.regressor == frozen else ""),
        f"{100 * item.balanced_accuracy:.1f} %",
        f"{item.auroc:.3f}",
        f"{100 * item.false_negative_rate:.1f} %",
        f"{100 * item.false_positive_rate:.1f} %",
    ]


def _groups(fitted: FittedMonitor) -> tuple[Array, Array]:
    """The drifts of the checkpoints up to tau, and of those above it, float64 [n, traits]."""
    params = fitted.monitor.params
    above = params["calibration_rates"] > fitted.monitor.manifest.threshold
    return params["calibration_drift"][~above], params["calibration_drift"][above]


def _intervals(fitted: FittedMonitor) -> Iterator[Interval]:
    for index, trait in enumerate(fitted.monitor.manifest.traits):
        for series, drifts in enumerate(_groups(fitted)):
            own = drifts[:, index]
            low, middle, high = (float(f(own)) for f in (np.min, np.median, np.max))
            name = trait.name if series == 0 else ""
            yield Interval(name, middle, low, high, f"{middle:+.3f}", series)


def _trait_rows(fitted: FittedMonitor) -> Iterator[list[str]]:
    for index, trait in enumerate(fitted.monitor.manifest.traits):
        ranges = [
            f"{drifts[:, index].min():+.4f} to {drifts[:, index].max():+.4f}"
            for drifts in _groups(fitted)
        ]
        yield [trait.name, f"{trait.probe_accuracy:.2f}", *ranges]
