"""The payloads in calibration/prompts: well-formed, distinct, of several forms and languages."""

import json
import re
from collections import Counter
from pathlib import Path

from layerguard.runtime.rows.jsonl import read_rows

FOLDER = Path(__file__).parents[1] / "calibration" / "prompts"
FILE = FOLDER / "payloads.jsonl"
ROWS = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]


def test_every_row_can_be_read() -> None:
    """Without a fault; a row is id, text, label, form, language."""
    read = read_rows([FILE])
    assert (len(read.good), read.faults) == (len(ROWS), ())
    assert {tuple(row) for row in ROWS} == {("id", "text", "label", "form", "language")}
    assert all(row["id"].startswith(row["form"]) for row in ROWS)
    assert len({row["id"] for row in ROWS}) == len({row["text"].casefold() for row in ROWS})


def test_payloads_are_of_six_forms_and_several_languages() -> None:
    """Harmless notices are a form of their own, and the only one of label 0."""
    forms = Counter(row["form"] for row in ROWS if row["label"])
    assert len(forms) == 6
    assert min(forms.values()) >= 4
    assert {row["form"] for row in ROWS if not row["label"]} == {"notice"}
    assert len({row["language"] for row in ROWS}) >= 6


def test_the_pages_count_what_the_file_holds() -> None:
    """In the folder's README and in the page of the detector."""
    harmful = sum(row["label"] for row in ROWS)
    for page in (FOLDER / "README.md", FOLDER.parents[1] / "docs" / "detectors" / "span.md"):
        text = " ".join(page.read_text(encoding="utf-8").split())
        assert re.findall(r"(\d+) payloads of six forms in six languages", text) == [str(harmful)]
        assert re.findall(r"(\d+) harmless notices", text) == [str(len(ROWS) - harmful)]
