"""Decisions at the operating point: confusion, calibration of p-values, agreement."""

from collections.abc import Sequence

from layerguard.calibration.evaluation.agreement import Pair
from layerguard.calibration.evaluation.analysis import Confusion
from layerguard.calibration.evaluation.p_values import PValueCheck
from layerguard.calibration.evaluation.page.formats import decimal, per_cent, percentage
from layerguard.calibration.report.charts import Curve, Marker, curve_chart
from layerguard.calibration.report.charts.svg import Axis
from layerguard.calibration.report.page import Paragraph, Section, Table

_SMALL = 0.2
"""Right end of the second chart of p-values."""

_P_VALUES = (
    "A p-value is calibrated if a target of 5 % flags 5 % of clean traffic, for every target: the "
    "curve then follows the diagonal. Above the diagonal, clean rows are flagged more often than "
    "the target says; below it, less often. The band is the 95 % interval at each target alone."
)
_AGREEMENT = (
    "Kappa is 1 if two detectors flag the same rows, and 0 if they agree no more often than by "
    "chance. Detectors that disagree and are both right find different things."
)


def confusion_section(confusions: Sequence[Confusion]) -> Section:
    """Numbers of rows by label and decision, with precision, recall and false alarms."""
    header = [
        "method", "harmful, flagged", "harmful, passed", "clean, flagged", "clean, passed",
        "recall, %", "false alarms, %", "precision, %",
    ]  # fmt: skip
    rows = [
        [
            item.method,
            str(item.detected),
            str(item.missed),
            str(item.false_alarms),
            str(item.passed),
            percentage(item.recall),
            percentage(item.fpr),
            percentage(item.precision),
        ]
        for item in confusions
    ]
    return Section("Confusion at the operating point", [Table(header, rows)])


def p_value_section(check: PValueCheck, target: float | None) -> Section:
    """The share of clean rows that each target would flag."""
    curve = Curve("clean rows", check.nominal, check.share, check.low, check.high)
    marker = []
    if target is not None:
        at = int(abs(check.nominal - target).argmin())
        words = f"at {per_cent(check.nominal[at])}: {per_cent(check.share[at])} flagged"
        marker = [Marker(0, float(check.nominal[at]), float(check.share[at]), words)]
    small = max(float(check.high[check.nominal <= _SMALL].max()), _SMALL)
    charts = [
        curve_chart(
            title,
            [curve],
            x=Axis(0, end, "target", percent=True),
            y=Axis(0, top, "flagged share of clean rows", percent=True),
            diagonal=True,
            markers=marker,
        )
        for title, end, top in (
            ("P-values of clean rows against the uniform distribution", 1.0, 1.0),
            ("The same for targets up to 20 %", _SMALL, small),
        )
    ]
    sentence = (
        f"The share exceeds the target most at {per_cent(check.at)}, by "
        f"{100 * check.largest_excess:.1f} percentage points."
        if check.largest_excess > 0
        else "The share exceeds no target."
    )
    return Section("Calibration of p-values", [Paragraph(_P_VALUES), *charts, Paragraph(sentence)])


def agreement_section(pairs: Sequence[Pair]) -> Section:
    """Every pair of detectors."""
    header = [
        "detectors", "both flag", "only the first", "only the second", "neither", "kappa",
        "rank correlation",
    ]  # fmt: skip
    rows = [
        [
            f"{pair.first}, {pair.second}",
            str(pair.both),
            str(pair.only_first),
            str(pair.only_second),
            str(pair.neither),
            decimal(pair.kappa),
            decimal(pair.rank_correlation),
        ]
        for pair in pairs
    ]
    return Section("Agreement of detectors", [Paragraph(_AGREEMENT), Table(header, rows)])
