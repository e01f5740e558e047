"""Charts as inline SVG for an HTML page.

svg         elements, axes, and the rectangle that values are drawn in
layers      lines over integers such as layers
curves      curves in two axes, such as ROC
bars        one bar for each label
histogram   two or more distributions, with thresholds
intervals   one value with its interval for each group
heat        a grid of cells

The modules write the markup without a plotting library. A page is then one text file whose text can
be searched and uses the reader's fonts and colours, and calibration needs no further library.
Colours are classes, which the page's style sheet defines for light, dark and paper. The title and
the legend of a chart are HTML, so they wrap on a narrow screen. Non-finite values are left out: a
gap in a line, no bar, a blank cell. The same values give the same bytes.
"""

from layerguard.calibration.report.charts.bars import bar_chart
from layerguard.calibration.report.charts.curves import Curve, Marker, curve_chart
from layerguard.calibration.report.charts.heat import heat_map
from layerguard.calibration.report.charts.histogram import Distribution, histogram
from layerguard.calibration.report.charts.intervals import Interval, interval_chart
from layerguard.calibration.report.charts.layers import Line, line_chart
from layerguard.calibration.report.charts.svg import Chart

__all__ = [
    "Chart", "Curve", "Distribution", "Interval", "Line", "Marker",
    "bar_chart", "curve_chart", "heat_map", "histogram", "interval_chart", "line_chart",
]  # fmt: skip
