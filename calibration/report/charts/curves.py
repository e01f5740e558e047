"""Curves in two axes, with a band, a diagonal and single points."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from layerguard.calibration.report.charts.svg import (
    Axis,
    Chart,
    Plot,
    Point,
    chart,
    dot,
    polygon,
    polyline,
    segment,
    series,
    standard_plot,
)
from layerguard.runtime.types import Array

_LEAST_DISTANCE = 0.5
"""Points of a curve that lie closer than this to the point before, in units of the chart, are left
out: nobody can see them."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A curve whose x ascends.

    Attributes:
        name: name in the legend.
        x: float64 [n].
        y: float64 [n].
        low: lower edge of a band around the curve, float64 [n]; None for no band.
        high: upper edge of the band.
    """

    name: str
    x: Array
    y: Array
    low: Array | None = None
    high: Array | None = None


@dataclass(frozen=True, slots=True)
class Marker:
    """A single point of the curve number ``series``; ``words`` describe it."""

    series: int
    x: float
    y: float
    words: str


def curve_chart(
    title: str,
    curves: Sequence[Curve],
    *,
    x: Axis,
    y: Axis,
    diagonal: bool = False,
    level: float | None = None,
    markers: Sequence[Marker] = (),
) -> Chart:
    """Curves within two given axes; what lies to the right of the x axis is cut off.

    Args:
        title: title of the chart.
        curves: the curves, in the order of the legend.
        x: the x axis.
        y: the y axis; it holds all values.
        diagonal: draw the line y = x.
        level: draw a horizontal line at this y.
        markers: points to draw on the curves.
    """
    plot = standard_plot(x, y, height=300)
    shapes = [*plot.y_axis(), *plot.x_axis()]
    if diagonal:
        end = min(x.high, y.high)
        shapes.append(segment(plot.at(x.low, x.low), plot.at(end, end), "reference"))
    if level is not None:
        shapes.append(segment(plot.at(x.low, level), plot.at(x.high, level), "reference"))
    for index, curve in enumerate(curves):
        kind = series(index)
        if curve.low is not None and curve.high is not None:
            upper, lower = (_visible(plot, curve.x, edge) for edge in (curve.high, curve.low))
            shapes.append(polygon([*upper, *reversed(lower)], f"band {kind}"))
        shapes.append(polyline(_visible(plot, curve.x, curve.y), f"line {kind}"))
    shapes += [
        dot(plot.at(marker.x, marker.y), 5, f"mark {series(marker.series)}", marker.words)
        for marker in markers
        if x.low <= marker.x <= x.high
    ]
    names = [curve.name for curve in curves]
    points = "".join(f"; {marker.words}" for marker in markers)
    description = f"{y.label} against {x.label}, of {', '.join(names)}{points}"
    return chart(title, description, shapes, plot.bottom + 46, names if len(names) > 1 else [])


def _visible(plot: Plot, x: Array, y: Array) -> list[Point]:
    """The points within the x axis that can be told apart, with the end of the axis."""
    inside = x <= plot.x.high
    ends = [] if inside.all() else [(plot.x.high, float(np.interp(plot.x.high, x, y)))]
    points = [plot.at(*point) for point in [*zip(x[inside], y[inside], strict=True), *ends]]
    kept = points[:1]
    for point in points[1:-1]:
        if math.dist(point, kept[-1]) >= _LEAST_DISTANCE:
            kept.append(point)
    return kept + points[1:][-1:]
