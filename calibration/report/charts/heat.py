"""A grid of cells."""

import math
from collections.abc import Sequence
from xml.etree.ElementTree import SubElement

import numpy as np

from layerguard.calibration.report.charts.svg import (
    CHARACTER,
    WIDTH,
    Axis,
    Chart,
    Plot,
    chart,
    rectangle,
    text,
)
from layerguard.runtime.types import Array

_CELL_HEIGHT = 20


def heat_map(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Array,
    *,
    x_label: str,
    unit: str,
) -> Chart:
    """A grid of cells, pale at zero and dark at the greatest value.

    Args:
        title: title of the chart.
        rows: a label for each row.
        columns: a label for each column.
        values: [rows, columns], 0 or greater.
        x_label: label of the x axis.
        unit: name of the values, shown with their range below the plot.
    """
    grid = np.asarray(values, np.float64)
    finite = grid[np.isfinite(grid)]
    high = float(finite.max()) if finite.size else 0.0
    left = 14 + CHARACTER * max(map(len, rows), default=0)
    label = f"{x_label}; {unit} from 0 (pale) to {high:.3g} (dark)"
    plot = Plot(
        Axis(0, max(1, len(columns)), label),
        Axis(0, 1, ""),
        left=left,
        top=8,
        width=WIDTH - left - 16,
        height=_CELL_HEIGHT * max(1, len(rows)),
    )
    step = plot.width / max(1, len(columns))
    shapes = []
    for i, row in enumerate(rows):
        y = plot.top + _CELL_HEIGHT * i
        shapes.append(text(left - 6, y + 15, row, "end"))
        for j, column in enumerate(columns):
            if math.isfinite(grid[i, j]):
                depth = min(1.0, max(0.0, grid[i, j] / high)) if high > 0 else 0.0
                cell = rectangle((plot.across(j), y), step, _CELL_HEIGHT, "mark s0")
                cell.set("fill-opacity", f"{0.04 + 0.96 * depth:.3f}")
                SubElement(cell, "title").text = f"{row}, {column}: {grid[i, j]:.4g}"
                shapes.append(cell)
    shapes += plot.x_names([plot.across(j + 0.5) for j in range(len(columns))], columns)
    return chart(title, f"{unit} by row and {x_label}", shapes, plot.bottom + 46)
