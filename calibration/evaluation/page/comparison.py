"""A second bundle on the same rows, side by side."""

from collections.abc import Iterator, Sequence

from layerguard.calibration.evaluation.agreement import Flips, flips
from layerguard.calibration.evaluation.analysis import Analysis
from layerguard.calibration.evaluation.evaluate import Evaluation
from layerguard.calibration.evaluation.page.formats import (
    counted,
    decimal,
    percentage,
    with_interval,
)
from layerguard.calibration.evaluation.ranking import COMPARED_FPR, GUARD, Ranking
from layerguard.calibration.evaluation.rates import GroupRates
from layerguard.calibration.evaluation.scored_rows import ScoredRow
from layerguard.calibration.report.charts import Chart, Curve, Interval, curve_chart, interval_chart
from layerguard.calibration.report.charts.svg import Axis
from layerguard.calibration.report.page import Paragraph, Part, Section, Table
from layerguard.runtime.cli.table import shorten

_NAMES = ("A", "B")
_TEXT = 240
_SHOWN = 50
"""Most rows that one bundle flags and the other does not, of each kind."""


def comparison_section(
    evaluations: Sequence[Evaluation], analyses: Sequence[Analysis], *, texts: bool
) -> Section:
    """Two bundles on the same rows; A is the first, the subject of the page."""
    names = "; ".join(
        f"{name} is bundle {item.bundle_id} of {item.guard.model}, target "
        + ("none" if item.guard.target_fpr is None else f"{100 * item.guard.target_fpr:g} %")
        for name, item in zip(_NAMES, evaluations, strict=True)
    )
    first, second = evaluations
    by_label = [flips(first.rows, second.rows, label) for label in (0, 1)]
    parts: list[Part] = [Paragraph(f"{names}."), *_charts(analyses), _ranking_table(analyses)]
    parts += [
        Paragraph(_changed(*pair)) for pair in zip(("clean", "harmful"), by_label, strict=True)
    ]
    parts += _flip_tables(by_label, texts=texts)
    return Section("Comparison of two bundles", parts)


def _charts(analyses: Sequence[Analysis]) -> Iterator[Chart]:
    yield interval_chart(
        "False alarms by source",
        list(_intervals(analyses)),
        x_label="flagged share of clean rows",
        legend=_NAMES,
    )
    curves = (
        [
            Curve(f"{name}: {item.method}", *item.roc)
            for name, item in _rankings(analyses)
            if item.method == analyses[0].rankings[0].method
        ]
        if analyses[0].rankings
        else []
    )
    if curves:
        yield curve_chart(
            "ROC",
            curves,
            x=Axis(0, 1, "false alarms, share of clean rows", percent=True),
            y=Axis(0, 1, "recall, share of harmful rows", percent=True),
            diagonal=True,
        )


def _intervals(analyses: Sequence[Analysis]) -> Iterator[Interval]:
    """The rates of both bundles for each source, under one another."""
    groups: dict[str, list[tuple[int, GroupRates]]] = {}
    for series, analysis in enumerate(analyses):
        for group in (analysis.total, *analysis.by_source):
            groups.setdefault(group.group, []).append((series, group))
    for name, own in groups.items():
        for series, group in own:
            if (found := group.false_alarms) is not None:
                label = f"{_NAMES[series]}: {name}"
                share = (found.share, found.low, found.high)
                yield Interval(label, *share, counted(found), series)


def _rankings(analyses: Sequence[Analysis]) -> Iterator[tuple[str, Ranking]]:
    for name, analysis in zip(_NAMES, analyses, strict=True):
        for item in analysis.rankings:
            yield name, item


def _ranking_table(analyses: Sequence[Analysis]) -> Table:
    header = [
        "method",
        "bundle",
        "AUROC",
        *(f"recall at {100 * fpr:g} % FPR, %" for fpr in COMPARED_FPR),
        "false alarms, % (95 %)",
        "detection, %",
    ]
    lines = [
        line
        for name, analysis in zip(_NAMES, analyses, strict=True)
        for line in _ranking_lines(name, analysis)
    ]
    order = list(dict.fromkeys(line[0] for line in lines))
    lines.sort(key=lambda line: order.index(line[0]))
    return Table(header, lines, caption="Both bundles", text_columns=(0, 1))


def _ranking_lines(name: str, analysis: Analysis) -> Iterator[list[str]]:
    """One line for the guard and each detector and baseline of a bundle."""
    rankings = {item.method: item for item in analysis.rankings}
    total = analysis.total
    alarms = {GUARD: total.false_alarms, **total.false_alarms_by_detector}
    confusions = {item.method: item for item in analysis.confusions}
    for method in dict.fromkeys([*confusions, *rankings]):
        ranking, own = rankings.get(method), confusions.get(method)
        yield [
            method,
            name,
            decimal(ranking.auroc if ranking else None),
            *(map(percentage, ranking.recall) if ranking else ["-"] * len(COMPARED_FPR)),
            with_interval(alarms.get(method)),
            percentage(own.recall if own else None),
        ]


def _changed(label: str, found: Flips) -> str:
    return (
        f"Of {found.n} {label} rows, only A flags {len(found.only_first)} and only B flags "
        f"{len(found.only_second)} (exact McNemar test of equal shares: p = {found.p_value:.3g})."
    )


def _flip_tables(by_label: Sequence[Flips], *, texts: bool) -> Iterator[Table]:
    for label, found in zip(("clean", "harmful"), by_label, strict=True):
        for name, rows in zip(_NAMES, (found.only_first, found.only_second), strict=True):
            if rows:
                yield Table(
                    ["row", *(["text"] if texts else []), "source"],
                    [_cells(row, texts=texts) for row in rows[:_SHOWN]],
                    caption=f"{label.capitalize()} rows that only {name} flags"
                    + (f" (the first {_SHOWN} of {len(rows)})" if len(rows) > _SHOWN else ""),
                    text_columns=(0, 1, 2),
                    wide_columns=(1,) if texts else (),
                )


def _cells(row: ScoredRow, *, texts: bool) -> list[str]:
    return [row.row.id, *([shorten(row.text, _TEXT)] if texts else []), row.source]
