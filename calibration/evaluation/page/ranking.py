"""ROC, precision and recall of every method, and thresholds on the score distributions."""

from collections.abc import Iterator, Sequence

import numpy as np

from layerguard.calibration.evaluation.analysis import Analysis
from layerguard.calibration.evaluation.evaluate import Evaluation
from layerguard.calibration.evaluation.page.formats import decimal, percentage
from layerguard.calibration.evaluation.ranking import COMPARED_FPR, Ranking
from layerguard.calibration.evaluation.scored_rows import label_array, scores_of
from layerguard.calibration.report.charts import (
    Chart,
    Curve,
    Distribution,
    Marker,
    curve_chart,
    histogram,
)
from layerguard.calibration.report.charts.svg import Axis
from layerguard.calibration.report.page import Paragraph, Part, Section, Table

_LOW_FPR = 0.1
"""Right end of the second ROC chart."""

_NOTE = (
    "Dots are the operating points: what the thresholds of the bundle do on these rows. The guard "
    "is ranked by its p-value. A recall at 1 % or 5 % of false alarms takes its threshold from "
    "these very rows: it compares methods and promises nothing. The share of harmful rows, the "
    "dashed line of precision, is that of these rows: where attacks are rarer, precision is lower."
)
_SCORES = (
    "Each group's bars add up to 100 %. What is to the right of the threshold is flagged. The "
    "threshold is that of all traffic."
)


def ranking_section(evaluation: Evaluation, analysis: Analysis) -> Section:
    """The curves and a table of their areas."""
    rankings = analysis.rankings
    share = float(label_array(evaluation.rows).mean())
    points = _operating_points(analysis)
    charts = [
        _roc("ROC", rankings, points, 1.0),
        _roc("ROC at few false alarms", rankings, points, _LOW_FPR),
        curve_chart(
            "Precision and recall",
            [Curve(item.method, *item.precision_recall) for item in rankings],
            x=Axis(0, 1, "recall", percent=True),
            y=Axis(0, 1, "precision", percent=True),
            level=share,
        ),
    ]
    header = [
        "method",
        "AUROC",
        "95 %",
        "average precision",
        *(f"recall at {100 * fpr:g} % FPR, %" for fpr in COMPARED_FPR),
    ]
    rows = [
        [
            item.method,
            decimal(item.auroc),
            "-" if item.auroc_interval is None else "{:.3f} to {:.3f}".format(*item.auroc_interval),
            decimal(item.average_precision),
            *(percentage(recall) for recall in item.recall),
        ]
        for item in rankings
    ]
    table = Table(header, rows, caption="Areas, and recall at few false alarms")
    return Section("Ranking", [Paragraph(_NOTE), *charts, table])


def score_section(evaluation: Evaluation) -> Section:
    """The distribution of each detector's scores, clean against harmful, with the threshold."""
    parts: list[Part] = [Paragraph(_SCORES)]
    parts += _histograms(evaluation)
    own = sum(
        any(
            reading.threshold != evaluation.guard.thresholds[name]
            for name, reading in row.readings.items()
        )
        for row in evaluation.rows
    )
    if own:
        parts.append(
            Paragraph(f"{own} of {len(evaluation.rows)} rows have thresholds of their domain.")
        )
    return Section("Scores and thresholds", parts)


def _histograms(evaluation: Evaluation) -> Iterator[Chart]:
    labels = label_array(evaluation.rows)
    for name, threshold in evaluation.guard.thresholds.items():
        scores = scores_of(evaluation.rows, name)
        finite = np.isfinite(scores)
        groups = [
            Distribution(group, scores[(labels == label) & finite])
            for label, group in enumerate(("clean", "harmful"))
            if (labels == label).any()
        ]
        if finite.any():
            yield histogram(f"Scores of {name}", groups, {"threshold": threshold}, x_label="score")


def _operating_points(analysis: Analysis) -> dict[str, tuple[float, float]]:
    """False-positive rate and recall at the thresholds, by method."""
    return {
        item.method: (item.fpr, item.recall)
        for item in analysis.confusions
        if item.fpr is not None and item.recall is not None
    }


def _roc(
    title: str,
    rankings: Sequence[Ranking],
    points: dict[str, tuple[float, float]],
    end: float,
) -> Chart:
    markers = [
        Marker(index, fpr, recall, f"{item.method}: {100 * recall:.1f} % at {100 * fpr:.1f} %")
        for index, item in enumerate(rankings)
        if item.method in points
        for fpr, recall in [points[item.method]]
    ]
    return curve_chart(
        title,
        [Curve(item.method, *item.roc) for item in rankings],
        x=Axis(0, end, "false alarms, share of clean rows", percent=True),
        y=Axis(0, 1, "recall, share of harmful rows", percent=True),
        diagonal=True,
        markers=markers,
    )
