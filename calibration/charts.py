"""Plots as inline SVG for a page of HTML: lines, bars, a heat map.

Each function returns one ``<svg>`` element. Values that are not finite are left out: a gap in a
line, no bar, a blank cell. The same values give the same bytes.
"""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from layerguard.runtime.types import Array

_WIDTH, _HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 34, 44
_INNER_WIDTH, _INNER_HEIGHT = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
_COLOURS = ("#2b6cb0", "#c05621", "#2f855a", "#805ad5", "#b83280", "#718096")
_LEAST_LABEL_PIXELS = 26
_CELL_HEIGHT = 18


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a line chart.

    Attributes:
        name: what the legend says.
        y: values at x = first, first + 1, ...
        low: lower edge of a band around the line, as long as ``y``; None for no band.
        high: upper edge of it.
    """

    name: str
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


def line_chart(
    title: str, lines: Sequence[Line], *, x_label: str, y_label: str, first: int = 0
) -> str:
    """Lines over whole numbers, layers for one; ``first`` is where x begins."""
    edges = [edge for line in lines for edge in (line.y, line.low or (), line.high or ())]
    low, high = _range([value for edge in edges for value in edge])
    count = max((len(line.y) for line in lines), default=0)
    x = [_LEFT + _INNER_WIDTH * i / max(1, count - 1) for i in range(count)]
    body = _y_axis(low, high, y_label) + _x_axis(
        x, [str(first + i) for i in range(count)], x_label, _HEIGHT - _BOTTOM
    )
    for line, colour in zip(lines, _cycle(len(lines)), strict=True):
        if line.low is not None and line.high is not None:
            body += _band(x, line.low, line.high, low, high, colour)
        for run in _finite_runs(line.y):
            points = [f"{x[i]:.1f},{_y(line.y[i], low, high):.1f}" for i in run]
            body += (
                f'<polyline fill="none" stroke="{colour}" stroke-width="2" stroke-linecap="round" '
                f'points="{" ".join(points * 2 if len(points) == 1 else points)}"/>\n'
            )
    return _svg(title, body + _legend([line.name for line in lines]), _HEIGHT)


def bar_chart(
    title: str, labels: Sequence[str], values: Sequence[float], *, x_label: str, y_label: str
) -> str:
    """One bar a label, from zero."""
    low, high = _range([0.0, *values])
    step = _INNER_WIDTH / max(1, len(values))
    centres = [_LEFT + step * (i + 0.5) for i in range(len(values))]
    body = _y_axis(low, high, y_label) + _x_axis(centres, labels, x_label, _HEIGHT - _BOTTOM)
    zero = _y(0.0, low, high)
    for centre, value in zip(centres, values, strict=True):
        if math.isfinite(value):
            top = _y(value, low, high)
            body += (
                f'<rect x="{centre - 0.4 * step:.1f}" y="{min(top, zero):.1f}" '
                f'width="{0.8 * step:.1f}" height="{abs(top - zero):.1f}" fill="{_COLOURS[0]}"/>\n'
            )
    return _svg(title, body, _HEIGHT)


def heat_map(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Array,
    *,
    x_label: str,
    unit: str,
) -> str:
    """A grid of cells, pale at the least value and dark at the greatest.

    Args:
        title: above the plot.
        rows: one label a row.
        columns: one label a column.
        values: [rows, columns].
        x_label: what the columns are.
        unit: what the values are; said with their range under the plot.
    """
    grid = np.asarray(values, np.float64)
    finite = grid[np.isfinite(grid)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    step = _INNER_WIDTH / max(1, len(columns))
    bottom = _TOP + _CELL_HEIGHT * len(rows)
    body = ""
    for i, row in enumerate(rows):
        y = _TOP + _CELL_HEIGHT * i
        body += _text(_LEFT - 6, y + 13, row, "end")
        for j in range(len(columns)):
            if math.isfinite(grid[i, j]):
                depth = (grid[i, j] - low) / (high - low) if high > low else 0.0
                body += (
                    f'<rect x="{_LEFT + step * j:.1f}" y="{y}" width="{step:.1f}" '
                    f'height="{_CELL_HEIGHT}" fill="{_COLOURS[0]}" '
                    f'fill-opacity="{0.04 + 0.96 * depth:.3f}"><title>'
                    f"{html.escape(f'{row}, {columns[j]}: {grid[i, j]:.4g}')}</title></rect>\n"
                )
    centres = [_LEFT + step * (j + 0.5) for j in range(len(columns))]
    label = f"{x_label}; {unit} from {low:.3g} (pale) to {high:.3g} (dark)"
    return _svg(title, body + _x_axis(centres, columns, label, bottom), bottom + _BOTTOM)


def _svg(title: str, body: str, height: int) -> str:
    name = html.escape(title)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" role="img" '
        f'aria-label="{name}" font-family="system-ui, sans-serif" font-size="11" '
        f'fill="currentColor">\n<text x="{_LEFT}" y="14" font-size="13" font-weight="600">{name}'
        f"</text>\n{body}</svg>\n"
    )


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>\n'


def _x_axis(x: Sequence[float], labels: Sequence[str], label: str, bottom: float) -> str:
    """Labels under the plot, as many as have room."""
    room = max(_LEAST_LABEL_PIXELS, 7 * max(map(len, labels), default=0))
    every = max(1, math.ceil(room * len(x) / _INNER_WIDTH))
    marks = "".join(
        _text(at, bottom + 16, name)
        for i, (at, name) in enumerate(zip(x, labels, strict=True))
        if i % every == 0
    )
    return marks + _text(_LEFT + _INNER_WIDTH / 2, bottom + 34, label)


def _y_axis(low: float, high: float, label: str) -> str:
    parts = _text(_LEFT, 28, label, "start")
    step = _tick_step(high - low)
    for number in range(math.ceil(low / step), math.floor(high / step) + 1):
        y = _y(number * step, low, high)
        parts += (
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" '
            'stroke="currentColor" stroke-opacity="0.15"/>\n'
        ) + _text(_LEFT - 6, y + 4, f"{number * step:.4g}", "end")
    return parts


def _tick_step(span: float) -> float:
    """1, 2 or 5 times a power of ten, so that about five ticks fit."""
    rough = span / 5
    power: float = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)


def _legend(names: Sequence[str]) -> str:
    if len(names) < 2:
        return ""
    parts, x = "", float(_WIDTH - _RIGHT)
    for name, colour in reversed(list(zip(names, _cycle(len(names)), strict=True))):
        x -= 6.5 * len(name)
        parts += _text(x, 28, name, "start")
        x -= 14
        parts += f'<rect x="{x:.1f}" y="20" width="10" height="8" fill="{colour}"/>\n'
        x -= 12
    return parts


def _band(
    x: Sequence[float],
    lower: Sequence[float],
    upper: Sequence[float],
    low: float,
    high: float,
    colour: str,
) -> str:
    known = [i for i in range(len(lower)) if math.isfinite(lower[i]) and math.isfinite(upper[i])]
    edge = [(x[i], _y(upper[i], low, high)) for i in known]
    edge += [(x[i], _y(lower[i], low, high)) for i in reversed(known)]
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in edge)
    return f'<polygon fill="{colour}" fill-opacity="0.15" points="{points}"/>\n'


def _finite_runs(values: Sequence[float]) -> list[list[int]]:
    """Indices of neighbouring finite values."""
    runs: list[list[int]] = [[]]
    for i, value in enumerate(values):
        if math.isfinite(value):
            runs[-1].append(i)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Least and greatest finite value, apart even where they are equal."""
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    return (low, high) if high > low else (low, low + (abs(low) or 1.0))


def _y(value: float, low: float, high: float) -> float:
    return _TOP + _INNER_HEIGHT * (high - value) / (high - low)


def _cycle(count: int) -> list[str]:
    return [_COLOURS[i % len(_COLOURS)] for i in range(count)]
