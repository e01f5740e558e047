"""One bar for each label."""

import math
from collections.abc import Sequence

from layerguard.calibration.report.charts.svg import (
    Axis,
    Chart,
    chart,
    from_zero,
    rectangle,
    standard_plot,
)


def bar_chart(
    title: str, labels: Sequence[str], values: Sequence[float], *, x_label: str, y_label: str
) -> Chart:
    """One bar for each label, from zero."""
    low, high = from_zero(values)
    plot = standard_plot(Axis(0, max(1, len(values)), x_label), Axis(low, high, y_label))
    centres = [plot.across(i + 0.5) for i in range(len(values))]
    shapes = [*plot.y_axis(), *plot.x_names(centres, labels)]
    zero, half = plot.up(0.0), 0.4 * plot.width / max(1, len(values))
    for centre, value in zip(centres, values, strict=True):
        if math.isfinite(value):
            top = plot.up(value)
            corner = (centre - half, min(top, zero))
            shapes.append(rectangle(corner, 2 * half, abs(top - zero), "mark s0"))
    return chart(title, f"{y_label} by {x_label}", shapes, plot.bottom + 46)
