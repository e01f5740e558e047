"""Self-contained HTML pages without links to other files; all text is escaped.

A page consists of sections, and a section of paragraphs, tables, facts and charts. The template is
``page.html.jinja``, with the style sheet ``page.css`` and the script ``page.js``. The script sorts
and filters tables; without it the page shows the same. A content security policy allows these two,
by their hashes, and nothing else.
"""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import groupby
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
    """A table of plain text.

    Attributes:
        header: the name of each column.
        rows: the cells of each row.
        caption: what the table shows; needed where the heading above does not say it.
        text_columns: indices of the columns that are aligned left; the others are numbers.
        wide_columns: indices of the columns of long texts, which stay wide on a narrow screen.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    text_columns: Sequence[int] = (0,)
    wide_columns: Sequence[int] = ()

    def kind(self, column: int) -> str:
        """The classes of a column's cells."""
        wide = " wide" if column in self.wide_columns else ""
        return f"words{wide}" if column in self.text_columns else ""


@dataclass(frozen=True, slots=True)
class Fact:
    """A figure that stands out: its name, its value, and what it is to be compared with."""

    name: str
    value: str
    note: str = ""


Part = Paragraph | Table | Chart | Fact


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with its parts; ``folded`` sections open on a click and are not printed."""

    heading: str
    parts: Sequence[Part]
    folded: bool = False

    def groups(self) -> Iterator[tuple[str, list[Part]]]:
        """Runs of parts of one kind, which stand side by side, with the name of the kind."""
        for kind, parts in groupby(self.parts, key=lambda part: type(part).__name__.lower()):
            yield kind, list(parts)


def page(title: str, sections: Sequence[Section]) -> str:
    """A whole HTML page."""
    style, script = _file("page.css"), _file("page.js")
    return _template().render(
        title=title,
        sections=sections,
        style=style,
        script=script,
        policy=_policy(style, script),
    )


def write_page(path: Path, text: str) -> None:
    """Write a page, or another text, to a file.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected a file to write to") from error


def _policy(style: str, script: str) -> str:
    """The content security policy: these two texts, and nothing else."""
    hashes = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (style, script)
    )
    style_hash, script_hash = hashes
    return (
        f"default-src 'none'; style-src 'sha256-{style_hash}'; script-src 'sha256-{script_hash}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _file(name: str) -> str:
    return (files("layerguard.calibration.report") / name).read_text(encoding="utf-8")


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    return environment.from_string(_file("page.html.jinja"))
