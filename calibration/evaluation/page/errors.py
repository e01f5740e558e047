"""The worst errors with their texts and evidence, and a table of all rows."""

from collections.abc import Sequence

from layerguard.calibration.evaluation.analysis import Analysis, smallest_p_value
from layerguard.calibration.evaluation.page.formats import plural
from layerguard.calibration.evaluation.scored_rows import ScoredRow
from layerguard.calibration.report.page import Paragraph, Section, Table
from layerguard.runtime.cli.table import shorten
from layerguard.runtime.types import Reading

_TEXT = 240
"""Shown characters of a text."""

_EVIDENCE = 3
"""Shown entries of evidence of a reading."""

_SHOWN_ROWS = 1000
"""Most rows in the table of all rows; the files beside the page hold all of them."""

_NOTE = (
    "False alarms begin with the row that the guard is most certain of, misses with the row that "
    "looks most like clean traffic. The evidence of a detector is what contributes most to its "
    "score: layers with their values. Only detectors that agree with the decision are shown. "
    "Check the label of a row before you count it as an error."
)


def error_section(analysis: Analysis, *, texts: bool) -> Section:
    """The worst false alarms and the worst misses."""
    tables = [
        Table(
            _header(texts=texts),
            [_cells(row, texts=texts) for row in rows],
            caption=f"{name} ({plural(len(rows), 'row')})",
            text_columns=_text_columns(texts=texts),
            wide_columns=_wide_columns(texts=texts),
        )
        for name, rows in (
            ("False alarms with the smallest p-values", analysis.false_alarms),
            ("Misses with the largest p-values", analysis.misses),
        )
        if rows
    ]
    none = [] if tables else [Paragraph("There is no false alarm and no miss.")]
    return Section("Worst errors", [Paragraph(_NOTE), *tables, *none])


def row_section(rows: Sequence[ScoredRow], *, texts: bool) -> Section:
    """A table of all rows, the errors first; folded, and not printed."""
    ordered = sorted(rows, key=lambda row: row.flagged == (row.label == 1))
    header = ["label", "guard", *_header(texts=texts)]
    body = [
        [
            "harmful" if row.label else "clean",
            "flagged" if row.flagged else "passed",
            *_cells(row, texts=texts),
        ]
        for row in ordered[:_SHOWN_ROWS]
    ]
    shown = f"the first {len(body)} of {plural(len(rows), 'row')}, errors first"
    words = (0, 1, *(column + 2 for column in _text_columns(texts=texts)))
    wide = tuple(column + 2 for column in _wide_columns(texts=texts))
    caption = "All rows, errors first" if len(body) == len(rows) else shown.capitalize()
    table = Table(header, body, caption=caption, text_columns=words, wide_columns=wide)
    return Section(f"All rows ({len(rows):,})", [table], folded=True)


def _header(*, texts: bool) -> list[str]:
    return ["row", *(["text"] if texts else []), "source", "tokens", "p", "evidence"]


def _text_columns(*, texts: bool) -> tuple[int, ...]:
    return (0, 1, 2, 5) if texts else (0, 1, 4)


def _wide_columns(*, texts: bool) -> tuple[int, ...]:
    return (1, 5) if texts else (4,)


def _cells(row: ScoredRow, *, texts: bool) -> list[str]:
    return [
        row.row.id,
        *([shorten(row.text, _TEXT)] if texts else []),
        row.source,
        str(row.tokens),
        f"{smallest_p_value(row):.4f}",
        "\n".join(
            _reading(reading, texts=texts)
            for reading in row.readings.values()
            if reading.flagged == row.flagged
        ),
    ]


def _reading(reading: Reading, *, texts: bool) -> str:
    """One detector's score, threshold and largest contributions, on one line.

    The words that it found are part of the text, and shown only if ``texts``.
    """
    relation = ">" if reading.flagged else "≤"
    parts = [
        f"layer {item.layer} {item.measure} {item.value:.3g}"
        for item in reading.evidence[:_EVIDENCE]
    ]
    parts += [repr(shorten(span.words, _TEXT)) for span in reading.spans if texts]
    where = f" ({', '.join(parts)})" if parts else ""
    return f"{reading.detector} {reading.score:.3g} {relation} {reading.threshold:.3g}{where}"
