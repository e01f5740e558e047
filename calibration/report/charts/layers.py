"""Lines over integers such as layers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from layerguard.calibration.report.charts.svg import (
    Axis,
    Chart,
    Plot,
    chart,
    from_zero,
    polygon,
    polyline,
    series,
    standard_plot,
)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a line chart.

    Attributes:
        name: name in the legend.
        y: values at x = first, first + 1, ...
        low: lower edge of a band around the line, as long as ``y``; None for no band.
        high: upper edge of the band.
    """

    name: str
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    first: int = 0,
    percent: bool = False,
) -> Chart:
    """Lines over integers from ``first``. The y axis holds zero; ``percent`` is for shares."""
    edges = [edge for line in lines for edge in (line.y, line.low or (), line.high or ())]
    low, high = from_zero(value for edge in edges for value in edge)
    count = max((len(line.y) for line in lines), default=0)
    x_axis = Axis(first, first + max(1, count - 1), x_label)
    plot = standard_plot(x_axis, Axis(low, high, y_label, percent))
    names = [str(first + i) for i in range(count)]
    shapes = [*plot.y_axis(), *plot.x_names([plot.across(first + i) for i in range(count)], names)]
    for index, line in enumerate(lines):
        places = [plot.across(first + i) for i in range(len(line.y))]
        if line.low is not None and line.high is not None:
            shapes.append(_band(plot, places, line.low, line.high, f"band {series(index)}"))
        shapes += [
            polyline([(places[i], plot.up(line.y[i])) for i in run], f"line {series(index)}")
            for run in _finite_runs(line.y)
        ]
    legend = [line.name for line in lines] if len(lines) > 1 else []
    description = f"{y_label} by {x_label}, of {', '.join(line.name for line in lines)}"
    return chart(title, description, shapes, plot.bottom + 46, legend)


def _band(
    plot: Plot, x: Sequence[float], low: Sequence[float], high: Sequence[float], kind: str
) -> Element:
    known = [i for i in range(len(low)) if math.isfinite(low[i]) and math.isfinite(high[i])]
    upper = [(x[i], plot.up(high[i])) for i in known]
    lower = [(x[i], plot.up(low[i])) for i in reversed(known)]
    return polygon(upper + lower, kind)


def _finite_runs(values: Sequence[float]) -> list[list[int]]:
    """The runs of indices of adjacent finite values."""
    runs: list[list[int]] = [[]]
    for i, value in enumerate(values):
        if math.isfinite(value):
            runs[-1].append(i)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]
