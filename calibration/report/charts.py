"""Charts as inline SVG for an HTML page: lines, bars, a heat map.

This module writes the markup without matplotlib. A page is then one text file whose text can be
searched and uses the reader's fonts and colours, and calibration needs no further library.
Non-finite values are left out: a gap in a line, no bar, a blank cell. The same values give the same
bytes.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np

from layerguard.runtime.types import Array

_WIDTH, _HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 34, 44
_INNER_WIDTH, _INNER_HEIGHT = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
_COLOURS = ("#2b6cb0", "#c05621", "#2f855a", "#805ad5", "#b83280", "#718096")
_LEAST_LABEL_PIXELS = 26
_CELL_HEIGHT = 18


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart as one ``<svg>`` element."""

    svg: str


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
    title: str, lines: Sequence[Line], *, x_label: str, y_label: str, first: int = 0
) -> Chart:
    """Lines over integers such as layers; ``first`` is the first x."""
    edges = [edge for line in lines for edge in (line.y, line.low or (), line.high or ())]
    low, high = _range([value for edge in edges for value in edge])
    count = max((len(line.y) for line in lines), default=0)
    x = [_LEFT + _INNER_WIDTH * i / max(1, count - 1) for i in range(count)]
    shapes = [*_y_axis(low, high, y_label)]
    shapes += _x_axis(x, [str(first + i) for i in range(count)], x_label, _HEIGHT - _BOTTOM)
    for line, colour in zip(lines, _cycle(len(lines)), strict=True):
        if line.low is not None and line.high is not None:
            shapes.append(_band(x, line.low, line.high, low, high, colour))
        for run in _finite_runs(line.y):
            points = [f"{x[i]:.1f},{_y(line.y[i], low, high):.1f}" for i in run]
            shapes.append(_polyline(points * 2 if len(points) == 1 else points, colour))
    return _chart(title, [*shapes, *_legend([line.name for line in lines])], _HEIGHT)


def bar_chart(
    title: str, labels: Sequence[str], values: Sequence[float], *, x_label: str, y_label: str
) -> Chart:
    """One bar for each label, from zero."""
    low, high = _range([0.0, *values])
    step = _INNER_WIDTH / max(1, len(values))
    centres = [_LEFT + step * (i + 0.5) for i in range(len(values))]
    shapes = [*_y_axis(low, high, y_label)]
    shapes += _x_axis(centres, labels, x_label, _HEIGHT - _BOTTOM)
    zero = _y(0.0, low, high)
    for centre, value in zip(centres, values, strict=True):
        if math.isfinite(value):
            top = _y(value, low, high)
            size = (0.8 * step, abs(top - zero))
            shapes.append(_rectangle(centre - 0.4 * step, min(top, zero), *size, _COLOURS[0]))
    return _chart(title, shapes, _HEIGHT)


def heat_map(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Array,
    *,
    x_label: str,
    unit: str,
) -> Chart:
    """A grid of cells, pale at the least value and dark at the greatest.

    Args:
        title: title above the plot.
        rows: a label for each row.
        columns: a label for each column.
        values: [rows, columns].
        x_label: label of the x axis.
        unit: name of the values, shown with their range below the plot.
    """
    grid = np.asarray(values, np.float64)
    finite = grid[np.isfinite(grid)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    step = _INNER_WIDTH / max(1, len(columns))
    bottom = _TOP + _CELL_HEIGHT * len(rows)
    shapes = []
    for i, row in enumerate(rows):
        y = _TOP + _CELL_HEIGHT * i
        shapes.append(_text(_LEFT - 6, y + 13, row, "end"))
        for j, column in enumerate(columns):
            if math.isfinite(grid[i, j]):
                depth = (grid[i, j] - low) / (high - low) if high > low else 0.0
                cell = _rectangle(_LEFT + step * j, y, step, _CELL_HEIGHT, _COLOURS[0])
                cell.set("fill-opacity", f"{0.04 + 0.96 * depth:.3f}")
                SubElement(cell, "title").text = f"{row}, {column}: {grid[i, j]:.4g}"
                shapes.append(cell)
    centres = [_LEFT + step * (j + 0.5) for j in range(len(columns))]
    label = f"{x_label}; {unit} from {low:.3g} (pale) to {high:.3g} (dark)"
    return _chart(title, [*shapes, *_x_axis(centres, columns, label, bottom)], bottom + _BOTTOM)


def _chart(title: str, shapes: Iterable[Element], height: int) -> Chart:
    svg = Element(
        "svg",
        {
            "viewBox": f"0 0 {_WIDTH} {height}",
            "width": str(_WIDTH),
            "height": str(height),
            "role": "img",
            "aria-label": title,
            "font-family": "system-ui, sans-serif",
            "font-size": "11",
            "fill": "currentColor",
        },
    )
    heading = {"x": str(_LEFT), "y": "14", "font-size": "13", "font-weight": "600"}
    SubElement(svg, "text", heading).text = title
    svg.extend(shapes)
    return Chart(tostring(svg, encoding="unicode"))


def _text(x: float, y: float, text: str, anchor: str = "middle") -> Element:
    shape = Element("text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor})
    shape.text = text
    return shape


def _rectangle(x: float, y: float, width: float, height: float, colour: str) -> Element:
    sides = {"x": x, "y": y, "width": width, "height": height}
    return Element("rect", {name: f"{side:.1f}" for name, side in sides.items()}, fill=colour)


def _polyline(points: Sequence[str], colour: str) -> Element:
    style = {"fill": "none", "stroke": colour, "stroke-width": "2", "stroke-linecap": "round"}
    return Element("polyline", style, points=" ".join(points))


def _x_axis(
    x: Sequence[float], labels: Sequence[str], label: str, bottom: float
) -> Iterator[Element]:
    """Labels below the plot, as many as fit."""
    label_width = max(_LEAST_LABEL_PIXELS, 7 * max(map(len, labels), default=0))
    every = max(1, math.ceil(label_width * len(x) / _INNER_WIDTH))
    for i, (at, name) in enumerate(zip(x, labels, strict=True)):
        if i % every == 0:
            yield _text(at, bottom + 16, name)
    yield _text(_LEFT + _INNER_WIDTH / 2, bottom + 34, label)


def _y_axis(low: float, high: float, label: str) -> Iterator[Element]:
    yield _text(_LEFT, 28, label, "start")
    step = _tick_step(high - low)
    for number in range(math.ceil(low / step), math.floor(high / step) + 1):
        y = _y(number * step, low, high)
        ends = {"x1": str(_LEFT), "x2": str(_WIDTH - _RIGHT), "y1": f"{y:.1f}", "y2": f"{y:.1f}"}
        yield Element("line", ends | {"stroke": "currentColor", "stroke-opacity": "0.15"})
        yield _text(_LEFT - 6, y + 4, f"{number * step:.4g}", "end")


def _tick_step(span: float) -> float:
    """1, 2 or 5 times a power of ten, for about five ticks."""
    rough = span / 5
    power: float = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)


def _legend(names: Sequence[str]) -> Iterator[Element]:
    if len(names) < 2:
        return
    x = float(_WIDTH - _RIGHT)
    for name, colour in reversed(list(zip(names, _cycle(len(names)), strict=True))):
        x -= 6.5 * len(name)
        yield _text(x, 28, name, "start")
        x -= 14
        yield _rectangle(x, 20, 10, 8, colour)
        x -= 12


def _band(
    x: Sequence[float],
    lower: Sequence[float],
    upper: Sequence[float],
    low: float,
    high: float,
    colour: str,
) -> Element:
    known = [i for i in range(len(lower)) if math.isfinite(lower[i]) and math.isfinite(upper[i])]
    edge = [(x[i], _y(upper[i], low, high)) for i in known]
    edge += [(x[i], _y(lower[i], low, high)) for i in reversed(known)]
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in edge)
    return Element("polygon", {"fill": colour, "fill-opacity": "0.15", "points": points})


def _finite_runs(values: Sequence[float]) -> list[list[int]]:
    """The runs of indices of adjacent finite values."""
    runs: list[list[int]] = [[]]
    for i, value in enumerate(values):
        if math.isfinite(value):
            runs[-1].append(i)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Least and greatest finite value; if they are equal, the greatest is increased."""
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    return (low, high) if high > low else (low, low + (abs(low) or 1.0))


def _y(value: float, low: float, high: float) -> float:
    return _TOP + _INNER_HEIGHT * (high - value) / (high - low)


def _cycle(count: int) -> list[str]:
    return [_COLOURS[i % len(_COLOURS)] for i in range(count)]
