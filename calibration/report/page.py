"""Self-contained HTML pages without scripts, links or external files; all text is escaped.

A page consists of sections, and a section of paragraphs, tables and charts. The template is
``page.html.jinja``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, Template

from layerguard.calibration.report.charts import Chart
from layerguard.runtime.errors import InputError


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Plain text."""

    text: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table of plain text; the first column is aligned left, the others right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with its paragraphs, tables and charts."""

    heading: str
    parts: Sequence[Paragraph | Table | Chart]


def page(title: str, sections: Sequence[Section]) -> str:
    """A whole HTML page."""
    return _template().render(title=title, sections=sections)


def write_page(path: Path, text: str) -> None:
    """Write a page to a file.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected a file to write to") from error


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    source = files("layerguard.calibration.report") / "page.html.jinja"
    return environment.from_string(source.read_text(encoding="utf-8"))
