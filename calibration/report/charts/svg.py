"""SVG elements, axes, and the rectangle that values are drawn in."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement, tostring

WIDTH = 520
"""Width of every chart in its own units. A page scales a chart to the width that it has: with 520
units, its text is readable both on a phone of 360 pixels and in half the width of a screen."""

SERIES = 6
"""Number of colours and dash patterns in the page's style sheet."""

CHARACTER = 8.2
"""Width to reserve for a character: text has 13 units, and 15 on a narrow screen."""

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart as one ``<svg>`` element.

    Attributes:
        title: what the chart shows.
        svg: the element, with the title and a description for screen readers.
        legend: names of the series in their order; empty if there is one series only.
    """

    title: str
    svg: str
    legend: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear axis from ``low`` to ``high``, which differ; per cent of shares if ``percent``."""

    low: float
    high: float
    label: str
    percent: bool = False

    def ticks(self, about: int = 5) -> list[float]:
        """About so many multiples of 1, 2 or 5 times a power of ten, within the axis."""
        step = _step((self.high - self.low) / about)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]

    def text(self, value: float) -> str:
        """A value as the label of a tick."""
        return f"{100 * value:.4g} %" if self.percent else f"{value:.4g}"


@dataclass(frozen=True, slots=True)
class Plot:
    """A rectangle with two axes; ``left`` and ``top`` are its corner in the chart."""

    x: Axis
    y: Axis
    left: float
    top: float
    width: float
    height: float

    @property
    def bottom(self) -> float:
        """The y of the lower edge."""
        return self.top + self.height

    def across(self, value: float) -> float:
        """The x of a value."""
        return self.left + self.width * (value - self.x.low) / (self.x.high - self.x.low)

    def up(self, value: float) -> float:
        """The y of a value."""
        return self.bottom - self.height * (value - self.y.low) / (self.y.high - self.y.low)

    def at(self, x: float, y: float) -> Point:
        """The place of a point."""
        return self.across(x), self.up(y)

    def y_axis(self) -> Iterator[Element]:
        """Grid lines with their values at the left, and the label above them."""
        yield text(self.left, self.top - 8, self.y.label, "start")
        for value in self.y.ticks():
            y = self.up(value)
            yield segment((self.left, y), (self.left + self.width, y), "grid")
            yield text(self.left - 6, y + 4.5, self.y.text(value), "end")

    def x_axis(self, about: int = 5) -> Iterator[Element]:
        """Grid lines with their values below, and the label under them."""
        for value in self.x.ticks(about):
            x = self.across(value)
            yield segment((x, self.top), (x, self.bottom), "grid")
            yield text(x, self.bottom + 18, self.x.text(value))
        yield self.x_label()

    def x_label(self) -> Element:
        """The label under the plot."""
        return text(self.left + self.width / 2, self.bottom + 38, self.x.label)

    def x_names(self, places: Sequence[float], names: Sequence[str]) -> Iterator[Element]:
        """Names below the plot, as many as fit, and the label under them."""
        width = max(20.0, CHARACTER * max(map(len, names), default=0) + 8)
        every = max(1, math.ceil(width * len(places) / self.width))
        for place, name in list(zip(places, names, strict=True))[::every]:
            yield text(place, self.bottom + 18, name)
        yield self.x_label()


def standard_plot(x: Axis, y: Axis, height: float = 250) -> Plot:
    """The rectangle of a chart with numbers at the left and below."""
    left = 10 + CHARACTER * max(len(y.text(value)) for value in y.ticks())
    return Plot(x, y, left=left, top=28, width=WIDTH - left - 24, height=height)


def chart(
    title: str,
    description: str,
    shapes: Iterable[Element],
    height: float,
    legend: Sequence[str] = (),
) -> Chart:
    """The finished chart."""
    box = {"viewBox": f"0 0 {WIDTH} {height:.0f}", "role": "img", "class": "chart"}
    svg = Element("svg", box)
    SubElement(svg, "title").text = title
    SubElement(svg, "desc").text = description
    svg.extend(shapes)
    return Chart(title, tostring(svg, encoding="unicode"), tuple(legend))


def series(index: int) -> str:
    """The class of a series' colour and dash pattern."""
    return f"s{index % SERIES}"


def text(x: float, y: float, words: str, anchor: str = "middle") -> Element:
    """Text at a place; ``anchor`` is start, middle or end."""
    shape = Element("text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor})
    shape.text = words
    return shape


def rectangle(corner: Point, width: float, height: float, kind: str) -> Element:
    """A rectangle of a class."""
    sides = {"x": corner[0], "y": corner[1], "width": width, "height": height}
    return Element("rect", {name: f"{side:.1f}" for name, side in sides.items()} | {"class": kind})


def segment(start: Point, end: Point, kind: str) -> Element:
    """A straight line of a class."""
    ends = {"x1": start[0], "y1": start[1], "x2": end[0], "y2": end[1]}
    return Element("line", {name: f"{value:.1f}" for name, value in ends.items()} | {"class": kind})


def polyline(points: Sequence[Point], kind: str) -> Element:
    """A line through points; a single point becomes a dot."""
    through = points if len(points) > 1 else [*points, *points]
    return Element("polyline", {"points": _joined(through), "class": kind})


def polygon(points: Sequence[Point], kind: str) -> Element:
    """A filled area."""
    return Element("polygon", {"points": _joined(points), "class": kind})


def dot(centre: Point, radius: float, kind: str, words: str) -> Element:
    """A circle that shows ``words`` under the pointer."""
    place = {"cx": f"{centre[0]:.1f}", "cy": f"{centre[1]:.1f}", "r": f"{radius:.1f}"}
    shape = Element("circle", place | {"class": kind})
    SubElement(shape, "title").text = words
    return shape


def from_zero(values: Iterable[float]) -> tuple[float, float]:
    """The range of the finite values and zero; never empty."""
    finite = [0.0, *(value for value in values if math.isfinite(value))]
    low, high = min(finite), max(finite)
    return (low, high) if high > low else (low, 1.0)


def _joined(points: Sequence[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _step(rough: float) -> float:
    """The least of 1, 2 or 5 times a power of ten that is at least ``rough``."""
    power: float = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
