"""Evaluation results laid out: a table for a terminal, and a page of HTML on its own."""

import html
from collections.abc import Sequence
from dataclasses import astuple, fields

from layerguard.calibration.figures import Figures, FileResult
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

_NOTES = (
    "macro-F1, realised FPR and detection are at the threshold that the bundle was calibrated to; "
    "macro-F1 at 0.5 is how it is published for scores that are probabilities. Recall at 1 % FPR "
    "takes its threshold from these very rows: it compares methods and promises nothing. Figures "
    "but AUROC are per cent."
)

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 3rem auto; max-width: 62rem; padding: 0 1rem }
table { border-collapse: collapse; margin: 0 0 2rem; width: 100% }
th, td { border-bottom: 1px solid #8884; padding: .3rem .7rem; text-align: right }
th:first-child, td:first-child { text-align: left }
"""


def text_table(results: Sequence[FileResult]) -> str:
    """All results as one table for a terminal."""
    header = ["file", "n", "harmful", *_columns()]
    body = [
        [result.file, str(result.n), str(result.positives), *_cells(line)]
        for result in results
        for line in result.figures
    ]
    return render(header, body)


def html_page(results: Sequence[FileResult], title: str) -> str:
    """All results as one page without scripts or links; everything in it is escaped."""
    sections = "".join(_section(result) for result in results)
    name = html.escape(title)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{name}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{name}</h1>\n{sections}<p>{html.escape(_NOTES)}</p></body></html>\n"
    )


def _section(result: FileResult) -> str:
    head = "".join(f"<th>{html.escape(column)}</th>" for column in _columns())
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in _cells(line)) + "</tr>\n"
        for line in result.figures
    )
    return (
        f"<h2>{html.escape(result.file)}</h2>\n<p>{result.n} rows, {result.positives} harmful</p>\n"
        f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody></table>\n"
    )


def _columns() -> list[str]:
    return [_HEADINGS[field.name] for field in fields(Figures)]


def _cells(line: Figures) -> list[str]:
    method, *numbers = astuple(line)
    names = [field.name for field in fields(Figures)][1:]
    return [method, *map(_cell, names, numbers)]


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if name == "auroc" else f"{100 * value:.1f}"
