"""Pages of HTML that stand alone: no script, no link, nothing loaded; all text in them is escaped.

A page is made of sections, a section of parts: paragraphs, tables, and the plots of
``layerguard.calibration.charts``.
"""

import html
from collections.abc import Sequence
from pathlib import Path

from layerguard.runtime.errors import InputError

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 3rem auto; max-width: 62rem; padding: 0 1rem }
table { border-collapse: collapse; margin: 0 0 2rem; width: 100% }
th, td { border-bottom: 1px solid #8884; padding: .3rem .7rem; text-align: right }
th:first-child, td:first-child { text-align: left }
svg { display: block; height: auto; margin: 0 0 1.5rem; max-width: 100% }
"""


def page(title: str, *sections: str) -> str:
    """A whole page from sections as ``section`` makes them."""
    name = html.escape(title)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{name}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{name}</h1>\n{''.join(sections)}</body></html>\n"
    )


def section(heading: str, *parts: str) -> str:
    """A heading with paragraphs, tables and charts under it."""
    return f"<h2>{html.escape(heading)}</h2>\n{''.join(parts)}"


def paragraph(text: str) -> str:
    """Plain text as a paragraph."""
    return f"<p>{html.escape(text)}</p>\n"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of plain text; the first column is aligned left, numbers right."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>\n"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table>\n"


def write_page(path: Path, text: str) -> None:
    """Write a page to a file.

    Raises:
        InputError: it cannot be written there.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected a file to write to") from error
