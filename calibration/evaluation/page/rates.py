"""Target against realised false alarms, and detection, by source and by length."""

from collections.abc import Iterator, Sequence

from layerguard.calibration.evaluation.analysis import Analysis
from layerguard.calibration.evaluation.evaluate import Evaluation
from layerguard.calibration.evaluation.page.formats import counted, percentage, with_interval
from layerguard.calibration.evaluation.rates import GroupRates, Rate
from layerguard.calibration.report.charts import Chart, Interval, interval_chart
from layerguard.calibration.report.page import Paragraph, Section, Table

_NOTE = (
    "The source of a row is its domain, or else its file. A group with few rows has a wide "
    "interval. One whose interval lies above the target is flagged more "
    "often than promised: the calibration rows do not represent it. Length is in tokens of the "
    "longest view of a row, with the chat template."
)


def rate_section(evaluation: Evaluation, analysis: Analysis) -> Section:
    """The section: charts, and one table with every figure of them."""
    groups = [("source", analysis.by_source), ("length", analysis.by_length)]
    target = evaluation.guard.target_fpr
    charts = [*_charts(groups, "false_alarms", target), *_charts(groups, "detection", None)]
    tables = [
        _table(what, [*own, analysis.total], list(analysis.total.false_alarms_by_detector))
        for what, own in groups
    ]
    return Section("By source and length", [Paragraph(_NOTE), *charts, *tables])


def _charts(
    groups: Sequence[tuple[str, Sequence[GroupRates]]], rate: str, target: float | None
) -> Iterator[Chart]:
    title = {"false_alarms": "False alarms", "detection": "Detection"}[rate]
    label = {
        "false_alarms": "flagged share of clean rows",
        "detection": "flagged share of harmful rows",
    }
    for what, own in groups:
        known: list[tuple[str, Rate]] = [
            (group.group, found) for group in own if (found := getattr(group, rate)) is not None
        ]
        if known:
            intervals = [
                Interval(name, found.share, found.low, found.high, counted(found))
                for name, found in known
            ]
            line = "" if target is None else f"; the line is the target, {100 * target:g} %"
            yield interval_chart(
                f"{title} of the guard by {what}",
                intervals,
                x_label=f"{label[rate]}{line}",
                target=target,
            )


def _table(what: str, groups: Sequence[GroupRates], detectors: Sequence[str]) -> Table:
    header = [
        what,
        "clean rows",
        "false alarms, % (95 %)",
        *(f"{name} alone, %" for name in detectors if len(detectors) > 1),
        "harmful rows",
        "detection, % (95 %)",
    ]
    rows = [
        [
            group.group,
            str(group.false_alarms.n if group.false_alarms else 0),
            with_interval(group.false_alarms),
            *(
                percentage(own.share if own else None)
                for name in detectors
                if len(detectors) > 1
                for own in [group.false_alarms_by_detector.get(name)]
            ),
            str(group.detection.n if group.detection else 0),
            with_interval(group.detection),
        ]
        for group in groups
    ]
    return Table(header, rows, caption=f"Rates by {what}")
