"""Charts: valid for any values, and true to them."""

import math
from itertools import pairwise
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerguard.calibration.report.charts import (
    Chart,
    Curve,
    Distribution,
    Interval,
    Line,
    Marker,
    bar_chart,
    curve_chart,
    heat_map,
    histogram,
    interval_chart,
    line_chart,
)
from layerguard.calibration.report.charts.svg import WIDTH, Axis

NUMBERS = st.lists(st.floats(width=32), max_size=12)


def _shapes(chart: Chart, tag: str) -> list[ET.Element]:
    return list(ET.fromstring(chart.svg).iter(tag))


@given(NUMBERS, st.text(max_size=20))
def test_whatever_is_plotted_is_sound_markup(values: list[float], name: str) -> None:
    """NaN, infinities, empty values and any label give a document that parses."""
    label = "".join(c for c in name if c.isprintable())
    labels = [label] * len(values)
    charts = [
        line_chart(label, [Line(label, values)], x_label=label, y_label=label),
        bar_chart(label, labels, values, x_label=label, y_label=label),
        heat_map(label, [label], labels, np.array([values]), x_label=label, unit=label),
        interval_chart(label, [Interval(label, 0.5, 0.0, 1.0, label)], x_label=label),
    ]
    for chart in charts:
        shapes = ET.fromstring(chart.svg).iter()
        drawn = [value for shape in shapes for value in shape.attrib.values()]
        assert not any("nan" in value or "inf" in value for value in drawn)


def test_a_gap_splits_a_line() -> None:
    """A non-finite value splits a line."""
    chart = line_chart("t", [Line("a", [1, 2, math.nan, 3, 4])], x_label="x", y_label="y")
    assert len(_shapes(chart, "polyline")) == 2


def test_a_line_rises_where_its_values_do() -> None:
    """Larger values lie higher, which is a smaller y."""
    (line,) = _shapes(line_chart("t", [Line("a", [0, 1, 3])], x_label="x", y_label="y"), "polyline")
    points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
    assert points[0][0] < points[1][0] < points[2][0]
    assert points[0][1] - points[2][1] == pytest.approx(3 * (points[0][1] - points[1][1]), abs=0.2)


def test_a_band_is_drawn_around_its_line() -> None:
    """The band covers the area from its lower to its upper edge."""
    line = Line("a", [1, 2, 3], low=[0, 1, 2], high=[2, 3, 4])
    assert len(_shapes(line_chart("t", [line], x_label="x", y_label="y"), "polygon")) == 1


def test_bars_stand_on_zero() -> None:
    """Heights are proportional to values, also below zero."""
    bars = _shapes(bar_chart("t", ["a", "b", "c"], [1, 2, -1], x_label="x", y_label="y"), "rect")
    heights = [float(bar.attrib["height"]) for bar in bars]
    assert heights[1] == pytest.approx(2 * heights[0], abs=0.2)
    assert float(bars[2].attrib["y"]) > float(bars[0].attrib["y"])


def test_heat_is_darkest_at_the_greatest_value() -> None:
    """The greatest value is the darkest; a cell without a value is blank."""
    values = np.array([[0.0, 1.0], [math.nan, 0.5]])
    cells = _shapes(heat_map("t", ["a", "b"], ["c", "d"], values, x_label="x", unit="u"), "rect")
    depths = [float(cell.attrib["fill-opacity"]) for cell in cells]
    assert len(depths) == 3
    assert depths[0] < depths[2] < depths[1]


FINITE = st.floats(-1e6, 1e6, allow_subnormal=False)


def _within(chart: Chart) -> None:
    """Every number of the chart lies within its box, but for the rounding of the last digit."""
    root = ET.fromstring(chart.svg)
    height = float(root.attrib["viewBox"].split()[3])
    for shape in root.iter():
        for name, value in shape.attrib.items():
            if name in ("x", "cx", "x1", "x2"):
                assert -0.1 <= float(value) <= WIDTH + 0.1
            if name in ("y", "cy", "y1", "y2"):
                assert -0.1 <= float(value) <= height + 0.1
        for point in shape.attrib.get("points", "").split():
            x, y = map(float, point.split(","))
            assert -0.1 <= x <= WIDTH + 0.1
            assert -0.1 <= y <= height + 0.1


@given(st.lists(FINITE, min_size=1, max_size=60), FINITE)
def test_a_histogram_holds_every_value_and_its_threshold(
    values: list[float], threshold: float
) -> None:
    """The shares of a group add up to 1, also with values beyond the last bin."""
    group = Distribution("clean", np.array(values))
    chart = histogram("t", [group], {"threshold": threshold}, x_label="score")
    _within(chart)
    (outline,) = _shapes(chart, "polyline")
    heights = [float(point.split(",")[1]) for point in outline.attrib["points"].split()]
    drawn = sum(_bottom(chart) - height for height in heights[::2])
    expected = (_bottom(chart) - min(heights)) / _largest_share(values, threshold)
    assert drawn == pytest.approx(expected, rel=0.02)


def _bottom(chart: Chart) -> float:
    """The y of share 0: the lowest corner of the filled area."""
    (area,) = _shapes(chart, "polygon")
    return max(float(point.split(",")[1]) for point in area.attrib["points"].split())


def _largest_share(values: list[float], threshold: float) -> float:
    """The share of the fullest of 40 bins, by counting."""
    low, high = min(*values, threshold), max(float(np.quantile(values, 0.99)), threshold)
    margin = 0.04 * (high - min(low, 0.0)) or 0.5
    edges = np.linspace(0.0 if low >= 0 else low - margin, high + margin, 41)
    places = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, 39)
    return float(np.bincount(places).max() / len(values))


@given(seed=st.integers(0, 999), end=st.floats(0.01, 1))
def test_a_curve_is_cut_at_the_end_of_its_axis(seed: int, end: float) -> None:
    """Points beyond the axis are left out, and the curve ends on the straight line to them."""
    rng = np.random.default_rng(seed)
    x = np.concatenate([[0.0], np.sort(rng.random(300)), [1.0]])
    y = np.sort(rng.random(302))
    band = {"low": y * 0.9, "high": np.minimum(1, y * 1.1)}
    chart = curve_chart(
        "t", [Curve("a", x, y, **band)], x=Axis(0, end, "x"), y=Axis(0, 1, "y"), diagonal=True
    )
    _within(chart)
    (line,) = _shapes(chart, "polyline")
    points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
    labels = [shape for shape in _shapes(chart, "text") if shape.text in ("0", "1")]
    labels = [label for label in labels if label.get("text-anchor") == "end"]
    zero, one = (float(label.attrib["y"]) - 4.5 for label in labels)
    share = (zero - points[-1][1]) / (zero - one)
    assert share == pytest.approx(np.interp(end, x, y), abs=0.002)
    assert all(a[0] <= b[0] for a, b in pairwise(points))


def test_a_marker_beyond_the_axis_is_not_drawn() -> None:
    """The description still names it."""
    curve = Curve("a", np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    markers = [Marker(0, 0.05, 0.5, "near"), Marker(0, 0.5, 0.5, "far")]
    chart = curve_chart(
        "t", [curve], x=Axis(0, 0.1, "x"), y=Axis(0, 1, "y"), level=0.3, markers=markers
    )
    assert [shape[0].text for shape in _shapes(chart, "circle")] == ["near"]
    assert "far" in chart.svg


def test_an_interval_lies_around_its_share_and_beside_the_target() -> None:
    """On one axis from zero: a dot at twice the target lies twice as far from zero."""
    chart = interval_chart(
        "t", [Interval("a" * 50, 0.1, 0.05, 0.3, "10 %")], x_label="x", target=0.05
    )
    _within(chart)
    (dot,) = _shapes(chart, "circle")
    lines = {shape.get("class", ""): shape for shape in _shapes(chart, "line")}
    zero = min(float(s.attrib["x1"]) for s in _shapes(chart, "line") if s.get("class") == "grid")
    target = float(lines["threshold"].attrib["x1"])
    assert float(dot.attrib["cx"]) - zero == pytest.approx(2 * (target - zero), abs=0.3)
    whisker = lines["whisker s0"].attrib
    assert float(whisker["x1"]) == pytest.approx(target, abs=0.1)
    assert float(whisker["x2"]) - zero == pytest.approx(6 * (target - zero), abs=0.8)


@given(low=st.floats(-100, 100), span=st.floats(0.001, 1000))
def test_ticks_are_round_and_within_the_axis(low: float, span: float) -> None:
    """Between two and ten of them, at equal distances."""
    ticks = Axis(low, low + span, "x").ticks()
    assert 2 <= len(ticks) <= 10
    assert low - 1e-6 * span <= ticks[0]
    assert ticks[-1] <= low + span * (1 + 1e-6)
    assert np.diff(ticks) == pytest.approx(ticks[1] - ticks[0])


def test_a_line_chart_holds_zero() -> None:
    """A line far from zero does not fill the height: its axis begins at zero."""
    chart = line_chart("t", [Line("a", [10, 11])], x_label="x", y_label="y")
    assert "0" in [shape.text for shape in _shapes(chart, "text")]
    _within(chart)
