"""Distributions of several groups on one axis, with thresholds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from layerguard.calibration.report.charts.svg import (
    CHARACTER,
    Axis,
    Chart,
    chart,
    polygon,
    polyline,
    segment,
    series,
    standard_plot,
    text,
)
from layerguard.runtime.types import Array

_BINS = 40
_COVERED = 0.99
"""Share of the values that the axis covers; the last bin holds those beyond it."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """The finite values of one group, float64 [n]."""

    name: str
    values: Array


def histogram(
    title: str,
    groups: Sequence[Distribution],
    thresholds: Mapping[str, float],
    *,
    x_label: str,
) -> Chart:
    """The share of each group's values in each of 40 bins.

    Args:
        title: title of the chart.
        groups: the groups, in the order of the legend; together at least one value.
        thresholds: vertical lines, by name.
        x_label: label of the x axis.
    """
    edges, beyond = _edges(np.concatenate([group.values for group in groups]), thresholds)
    shares = [_shares(group.values, edges) for group in groups]
    label = f"{x_label}; the last bin holds greater scores too" if beyond else x_label
    top = max(float(share.max()) for share in shares)
    x = Axis(float(edges[0]), float(edges[-1]), label)
    plot = standard_plot(x, Axis(0.0, top or 1.0, "share of the group", percent=True))
    shapes = [*plot.y_axis(), *plot.x_axis()]
    for index, share in enumerate(shares):
        outline = [
            plot.at(float(edges[place + side]), float(height))
            for place, height in enumerate(share)
            for side in (0, 1)
        ]
        corners = [plot.at(float(edges[-1]), 0.0), plot.at(float(edges[0]), 0.0)]
        shapes.append(polygon([*outline, *corners], f"band {series(index)}"))
        shapes.append(polyline(outline, f"line thin {series(index)}"))
    for name, value in thresholds.items():
        place = plot.across(value)
        fits = place + CHARACTER * len(name) + 6 < plot.left + plot.width
        shapes.append(segment((place, plot.top), (place, plot.bottom), "threshold"))
        shift, anchor = (5, "start") if fits else (-5, "end")
        shapes.append(text(place + shift, plot.top + 12, name, anchor))
    lines = ", ".join(f"{name} at {value:.4g}" for name, value in thresholds.items())
    description = f"{', '.join(group.name for group in groups)}; {lines}"
    return chart(title, description, shapes, plot.bottom + 46, [group.name for group in groups])


def _edges(values: Array, thresholds: Mapping[str, float]) -> tuple[Array, bool]:
    """The edges of the bins, and whether values lie beyond the last one."""
    low = min([float(values.min()), *thresholds.values()])
    high = max([float(np.quantile(values, _COVERED)), *thresholds.values()])
    margin = 0.04 * (high - min(low, 0.0)) or 0.5
    start, end = (0.0 if low >= 0 else low - margin), high + margin
    return np.linspace(start, end, _BINS + 1), bool(values.max() > end)


def _shares(values: Array, edges: Array) -> Array:
    """The share of the values in each bin, float64 [bins]; the last holds greater values too."""
    if not len(values):
        return np.zeros(len(edges) - 1)
    counts, _ = np.histogram(np.minimum(values, edges[-1]), edges)
    shares: Array = counts / len(values)
    return shares
