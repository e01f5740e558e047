"""Charts and pages: self-contained, escaped, and valid for any values."""

import math
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerguard.calibration.report.charts import Chart, Line, bar_chart, heat_map, line_chart
from layerguard.calibration.report.page import Paragraph, Section, Table, page

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
    ]
    for chart in charts:
        shapes = ET.fromstring(chart.svg).iter()
        drawn = [v for shape in shapes for key, v in shape.attrib.items() if key != "aria-label"]
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


def test_a_page_escapes_everything() -> None:
    """Title, heading, paragraph and cells are escaped."""
    bad = "<b>&\"'"
    text = page(bad, [Section(bad, [Paragraph(bad), Table([bad], [[bad]])])])
    assert "<b>" not in text
    assert text.count("&lt;b&gt;&amp;") == 6
