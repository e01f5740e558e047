"""The metrics of each file as tables."""

from collections.abc import Sequence
from dataclasses import astuple, fields

from layerguard.calibration.evaluation.results import FileResult, MethodMetrics
from layerguard.runtime.cli.table import render

_HEADINGS = {
    "method": "method",
    "macro_f1": "macro-F1",
    "macro_f1_at_half": "macro-F1 at 0.5",
    "auroc": "AUROC",
    "recall_at_1_percent_fpr": "recall at 1 % FPR",
    "realised_fpr": "realised FPR",
    "detection": "detection",
}

METRIC_NOTES = (
    "macro-F1, realised FPR and detection are at the threshold that the bundle was calibrated to; "
    "macro-F1 at 0.5 is how it is published for scores that are probabilities. Recall at 1 % FPR "
    "takes its threshold from these very rows: it compares methods and promises nothing. Figures "
    "but AUROC are per cent."
)


def text_table(results: Sequence[FileResult]) -> str:
    """All results as one table for a terminal."""
    header = ["file", "n", "harmful", *columns()]
    body = [
        [result.file, str(result.n), str(result.positives), *metric_cells(line)]
        for result in results
        for line in result.figures
    ]
    return render(header, body)


def columns() -> list[str]:
    """The headings of the metrics."""
    return [_HEADINGS[field.name] for field in fields(MethodMetrics)]


def metric_cells(line: MethodMetrics) -> list[str]:
    """One method's metrics as text."""
    method, *numbers = astuple(line)
    names = [field.name for field in fields(MethodMetrics)][1:]
    return [method, *map(_cell, names, numbers)]


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if name == "auroc" else f"{100 * value:.1f}"
