"""One value with its interval for each group, under one another."""

from collections.abc import Sequence
from dataclasses import dataclass

from layerguard.calibration.report.charts.svg import (
    CHARACTER,
    WIDTH,
    Axis,
    Chart,
    Plot,
    chart,
    dot,
    from_zero,
    segment,
    series,
    text,
)
from layerguard.runtime.cli.table import shorten

_ROW_HEIGHT = 24
_NAME = 20
"""Most characters of a name at the left."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A share with its interval; ``note`` stands at the right, ``series`` gives the colour."""

    name: str
    value: float
    low: float
    high: float
    note: str
    series: int = 0


def interval_chart(
    title: str,
    intervals: Sequence[Interval],
    *,
    x_label: str,
    target: float | None = None,
    legend: Sequence[str] = (),
) -> Chart:
    """A dot with its interval for each group, on an axis of shares that holds zero.

    Args:
        title: title of the chart.
        intervals: from top to bottom.
        x_label: label of the axis.
        target: draw a vertical line at this share.
        legend: names of the series, if there are several.
    """
    names = [shorten(interval.name, _NAME) for interval in intervals]
    left = 14 + CHARACTER * max(map(len, names), default=0)
    right = 14 + CHARACTER * max((len(interval.note) for interval in intervals), default=0)
    low, high = from_zero([target or 0.0, *(end for i in intervals for end in (i.low, i.high))])
    margin = 0.05 * (high - low)
    high = 1.0 if high <= 1.0 <= high + margin else high + margin
    plot = Plot(
        Axis(low, high, x_label, percent=True),
        Axis(0.0, 1.0, ""),
        left=left,
        top=8,
        width=WIDTH - left - right,
        height=_ROW_HEIGHT * max(1, len(intervals)),
    )
    shapes = [*plot.x_axis()]
    if target is not None:
        place = plot.across(target)
        shapes.append(segment((place, plot.top), (place, plot.bottom), "threshold"))
    for index, (interval, name) in enumerate(zip(intervals, names, strict=True)):
        y = plot.top + _ROW_HEIGHT * (index + 0.5)
        kind = series(interval.series)
        ends = (plot.across(interval.low), y), (plot.across(interval.high), y)
        words = f"{interval.name}: {interval.note}"
        shapes.append(text(left - 8, y + 4.5, name, "end"))
        shapes.append(segment(*ends, f"whisker {kind}"))
        shapes.append(dot((plot.across(interval.value), y), 5, f"mark {kind}", words))
        shapes.append(text(WIDTH - right + 8, y + 4.5, interval.note, "start"))
    line = "" if target is None else f"; the line is at {100 * target:g} %"
    return chart(title, f"{x_label}, by group{line}", shapes, plot.bottom + 46, legend)
