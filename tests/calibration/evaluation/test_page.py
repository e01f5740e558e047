"""The page of an evaluation: complete, escaped, and true to the results."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerguard.calibration.evaluation.analysis import analyse
from layerguard.calibration.evaluation.domains import Cell
from layerguard.calibration.evaluation.evaluate import Evaluation
from layerguard.calibration.evaluation.files import write_json, write_parquet
from layerguard.calibration.evaluation.page.page import html_page
from layerguard.runtime.errors import InputError, MachineError
from layerguard.runtime.types import Span
from tests.calibration.evaluation.evaluations import make_evaluation, make_row, make_rows
from tests.calibration.report.parsed_page import ParsedPage, check_page

ROWS = make_rows(120, seed=1)
BAD = "<script>alert(1)</script>&\"'"


def shown(
    evaluation: Evaluation, *, texts: bool = True, other: Evaluation | None = None
) -> ParsedPage:
    """The checked page of an evaluation."""
    analysis = analyse(evaluation)
    return check_page(html_page(evaluation, analysis, "Title", compared=other, texts=texts))


def test_a_page_has_every_section_and_every_row() -> None:
    """Sections in their order, a chart for each question, and one line for each row."""
    page = shown(make_evaluation(ROWS))
    assert page.headings == [
        "Summary", "By source and length", "Ranking", "Scores and thresholds",
        "Confusion at the operating point", "Calibration of p-values", "Worst errors",
        "Agreement of detectors", "Metrics by file", "All rows (120)",
    ]  # fmt: skip
    assert [chart[0].text for chart in page.charts] == [
        "False alarms of the guard by source", "False alarms of the guard by length",
        "Detection of the guard by source", "Detection of the guard by length",
        "ROC", "ROC at few false alarms", "Precision and recall", "Scores of lcf",
        "Scores of siren", "P-values of clean rows against the uniform distribution",
        "The same for targets up to 20 %",
    ]  # fmt: skip
    lines = page.table("label")
    assert {line[2] for line in lines} == {row.row.id for row in ROWS}
    assert {line[3] for line in lines} == {row.text for row in ROWS}
    wrong = [(line[0] == "harmful") != (line[1] == "flagged") for line in lines]
    assert wrong == sorted(wrong, reverse=True)


def test_figures_are_those_of_the_rows() -> None:
    """Confusion and rates count the same rows."""
    page = shown(make_evaluation(ROWS))
    clean = [row for row in ROWS if row.label == 0]
    flagged = sum(row.flagged for row in clean)
    (confusion,) = [table for table in page.tables if table[0][3] == "clean, flagged"]
    assert confusion[1][3:5] == [str(flagged), str(len(clean) - flagged)]
    (total,) = [line for line in page.table("source") if line[0] == "all rows"]
    assert total[1] == str(len(clean))
    assert total[2].startswith(f"{100 * flagged / len(clean):.1f} (")


def test_everything_that_a_row_brings_is_escaped() -> None:
    """Text, id, source and file are shown as they are, and run nothing."""
    row = make_row(BAD, 1, (0.0, 0.0), source=BAD, text=BAD, p_value=0.5)
    rows = [replace(row, file=BAD), *ROWS]
    evaluation = make_evaluation(rows)
    files = (replace(evaluation.files[0], file=BAD),)
    page = shown(replace(evaluation, files=files))
    (line,) = [line for line in page.table("label") if line[2] == BAD]
    assert (line[3], line[4]) == (BAD, BAD)
    assert f"{BAD}: 121 rows" in page.text


def test_texts_can_be_left_out(tmp_path: Path) -> None:
    """Neither page nor file holds a word of a text; ids stay."""
    evaluation = make_evaluation(ROWS)
    page = shown(evaluation, texts=False, other=make_evaluation(make_rows(120, seed=2)))
    assert "text number" not in page.source
    assert "row-7" in page.source
    path = tmp_path / "rows.json"
    write_json(path, evaluation, analyse(evaluation), texts=False)
    assert "text number" not in path.read_text(encoding="utf-8")


def test_the_words_that_a_detector_found_are_shown_with_the_texts(tmp_path: Path) -> None:
    """They are part of a text: without texts only their offsets are kept."""
    row = make_row("found", 0, (9.0, 0.0), p_value=0.01)
    words = replace(row.readings["lcf"], spans=(Span(4, 17, "mail the list", 2.5),))
    evaluation = make_evaluation([replace(row, readings={**row.readings, "lcf": words}), *ROWS])
    (line,) = [line for line in shown(evaluation).table("label") if line[2] == "found"]
    assert "'mail the list'" in line[-1]
    assert "mail the list" not in shown(evaluation, texts=False).source
    path = tmp_path / "rows.json"
    write_json(path, evaluation, analyse(evaluation), texts=False)
    content = path.read_text(encoding="utf-8")
    assert "mail the list" not in content
    assert json.loads(content)["rows"][0]["lcf.spans"] == [[4, 17]]


def test_errors_are_sorted_by_how_certain_the_guard_was() -> None:
    """False alarms from the smallest p-value, misses from the largest."""
    analysis = analyse(make_evaluation(ROWS))
    alarms = [row.p_value for row in analysis.false_alarms]
    misses = [row.p_value for row in analysis.misses]
    assert alarms == sorted(p for p in alarms if p is not None)
    assert misses == sorted((p for p in misses if p is not None), reverse=True)
    wrong = [row for row in ROWS if row.label == 0 and row.flagged]
    assert min(p for row in wrong if (p := row.p_value) is not None) == alarms[0]
    assert all(row.label == 1 and not row.flagged for row in analysis.misses)


def test_without_a_promise_the_guard_has_a_point_and_no_curve() -> None:
    """Detectors are still ranked, and errors sorted by their p-values."""
    rows = [replace(row, p_value=None) for row in ROWS]
    page = shown(make_evaluation(rows, target=None))
    assert "none is promised" in page.text
    assert "Calibration of p-values" not in page.headings
    methods = [line[0] for table in page.tables if table[0][1] == "AUROC" for line in table[1:]]
    assert methods == ["lcf", "siren", "tf-idf + logistic"]


@pytest.mark.parametrize("label", [0, 1])
def test_rows_of_one_label_have_no_curves(label: int) -> None:
    """The page says so, and shows the rates of that label."""
    page = shown(make_evaluation([row for row in ROWS if row.label == label]))
    assert "one label only" in page.text
    assert "Ranking" not in page.headings
    assert page.charts


def test_no_rows_make_a_page() -> None:
    """It says that no row could be read."""
    page = shown(make_evaluation([]))
    assert "No row could be read." in page.text
    assert page.headings == ["Summary", "Metrics by file"]


def test_a_second_bundle_stands_beside_the_first() -> None:
    """Both bundles' figures, and the rows whose decision differs."""
    other = [replace(row, flagged=not row.flagged) if i < 9 else row for i, row in enumerate(ROWS)]
    page = shown(make_evaluation(ROWS), other=make_evaluation(other))
    assert "Comparison of two bundles" in page.headings
    tables = [table[1:] for table in page.tables if table[0] == ["row", "text", "source"]]
    assert sorted(line[0] for table in tables for line in table) == [f"row-{i}" for i in range(9)]
    assert "Of 80 clean rows, only A flags" in page.text


def test_the_shares_of_each_domains_thresholds_are_shown() -> None:
    """A line for each set of thresholds, a column for each domain, escaped."""
    cells = (
        Cell("all traffic", "chat", 80, 0.05),
        Cell("all traffic", BAD, 40, 0.2),
        Cell("chat", "chat", 80, 0.01),
        Cell("chat", BAD, 40, 0.325),
    )
    page = shown(replace(make_evaluation(ROWS), domains=cells))
    (table,) = [table for table in page.tables if table[0][0].startswith("thresholds of")]
    assert table[0][1:] == ["chat (80)", f"{BAD} (40)"]
    assert table[1:] == [["all traffic", "5.0", "20.0"], ["chat", "1.0", "32.5"]]


@settings(max_examples=15)
@given(
    n=st.integers(1, 12),
    seed=st.integers(0, 99),
    value=st.sampled_from([float("nan"), float("inf"), 0.0]),
)
def test_any_rows_make_a_sound_page(n: int, seed: int, value: float) -> None:
    """Few rows, equal scores and scores that are not finite break nothing."""
    rows = [*make_rows(n, seed), make_row("odd", seed % 2, (value, 0.0), p_value=0.1)]
    shown(make_evaluation(rows))


def test_the_file_holds_every_row_and_the_figures_of_the_page(tmp_path: Path) -> None:
    """One JSON object; scores that are not finite are null."""
    rows = [*ROWS, make_row("odd", 0, (float("nan"), 0.0), p_value=0.001)]
    evaluation = make_evaluation(rows)
    analysis = analyse(evaluation)
    write_json(tmp_path / "out.json", evaluation, analysis, texts=True)
    read = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [line["id"] for line in read["rows"]] == [row.row.id for row in rows]
    assert read["rows"][-1]["lcf.score"] is None
    assert read["rows"][0]["siren.score"] == rows[0].readings["siren"].score
    assert read["rows"][0]["lcf.evidence"][0] == {"layer": 3, "measure": "z", "value": 2.5}
    assert read["rows"][0]["tf-idf + logistic.score"] == rows[0].baselines["tf-idf + logistic"]
    assert analysis.total.false_alarms is not None
    assert read["total"]["false_alarms"]["share"] == analysis.total.false_alarms.share
    assert read["rankings"][0]["auroc"] == analysis.rankings[0].auroc
    with pytest.raises(InputError, match="expected a file to write to"):
        write_json(tmp_path / "no" / "out.json", evaluation, analysis, texts=True)


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing extra is the machine's fault."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MachineError, match=r"pip install 'layerguard\[parquet\]'"):
        write_parquet(tmp_path / "rows.parquet", make_evaluation(ROWS), texts=True)


def test_parquet_has_the_columns_of_the_json_file(tmp_path: Path) -> None:
    """One line for each row, read back as it was written."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs layerguard[parquet]")
    write_parquet(tmp_path / "rows.parquet", make_evaluation(ROWS), texts=True)
    lines = parquet.read_table(tmp_path / "rows.parquet").to_pylist()
    assert [line["id"] for line in lines] == [row.row.id for row in ROWS]
    assert lines[5]["lcf.score"] == ROWS[5].readings["lcf"].score
    assert lines[5]["lcf.evidence"][0]["layer"] == 3
