"""Pages: self-contained, escaped, complete."""

import shutil
import subprocess
from pathlib import Path

import pytest

from layerguard.calibration.report.charts import Line, line_chart
from layerguard.calibration.report.page import (
    Fact,
    Paragraph,
    Section,
    Table,
    page,
    write_page,
)
from layerguard.runtime.errors import InputError
from tests.calibration.report.parsed_page import check_page

BAD = "</script><script>alert(1)</script><b onclick=x>&\"'"
CHART = line_chart(BAD, [Line(BAD, [1, 2]), Line("b", [2, 1])], x_label=BAD, y_label=BAD)


def test_a_page_escapes_everything() -> None:
    """Title, heading, paragraph, fact, chart, legend, caption and cells are shown as text."""
    parts = [Paragraph(BAD), Fact(BAD, BAD, BAD), CHART, Table([BAD], [[BAD]], caption=BAD)]
    sections = [Section(BAD, parts), Section(BAD, [], folded=True), Section(BAD, [])]
    parsed = check_page(page(BAD, sections))
    assert parsed.tags.count("b") == 0
    assert parsed.headings == [BAD] * 3
    assert parsed.tables == [[[BAD], [BAD]]]
    assert parsed.text.count(BAD) == 23


def test_parts_keep_their_order_and_charts_stand_side_by_side() -> None:
    """Charts that follow each other share a grid; a paragraph between them starts another."""
    text = page("t", [Section("s", [CHART, CHART, Paragraph("between"), CHART])])
    assert text.count('<div class="charts">') == 2
    first, second = text.split("between")
    assert (first.count("<figure>"), second.count("<figure>")) == (2, 1)


def test_a_legend_names_each_series_with_its_colour() -> None:
    """The classes of the legend are those of the lines."""
    text = page("t", [Section("s", [CHART])])
    for number in (0, 1):
        assert text.count(f'class="line s{number}"') == 2


def test_a_page_needs_no_script_to_show_its_rows() -> None:
    """Rows and headings are in the document; the script only adds buttons and fields."""
    rows = [[str(number)] for number in range(30)]
    source = page("t", [Section("s", [Table(["n"], rows)])])
    assert check_page(source).table("n") == rows
    assert "button" not in check_page(source).tags


def test_numbers_are_told_from_words() -> None:
    """Columns of words are aligned left: the first, or those that are named."""
    table = Table(["a", "b", "c"], [["1", "2", "3"]], text_columns=(1, 2), wide_columns=(2,))
    text = page("t", [Section("s", [table])])
    assert '<td>1</td><td class="words">2</td><td class="words wide">3</td>' in text


def test_a_page_that_cannot_be_written_is_an_input_error(tmp_path: Path) -> None:
    """The message names the file."""
    with pytest.raises(InputError, match="expected a file to write to"):
        write_page(tmp_path / "no" / "page.html", "")


def test_the_script_is_valid() -> None:
    """A JavaScript engine parses it, where one is installed."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    source = page("t", [])
    script = check_page(source).scripts[0]
    done = subprocess.run(
        [node, "--check", "-"], input=script, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
