"""The leakage guard: texts that differ only in form are the same text."""

import html
import json
from pathlib import Path

import pytest

from layerguard.calibration.rows.leakage import (
    TestTexts,
    normalised,
    prompt_group,
    words_group,
)
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.text.request import request


def row(prompt: str, response: str | None = None) -> Row:
    """A row of that prompt."""
    return Row("id", request(prompt=prompt, response=response))


@pytest.mark.parametrize(
    "dressed",
    [
        "how DO I  bake bread?",
        "\tHow do I bake\n\nbread? ",
        "How do I bake bread\uff1f",
        "\uff28ow do \u2160 bake bread?",
        "How do I bake\u00a0bread?",
    ],
)
def test_case_width_and_white_space_make_no_other_text(dressed: str) -> None:
    """Texts are compared after NFKC, case folding and collapsing white space."""
    assert normalised(dressed) == normalised("How do I bake bread?")
    assert TestTexts.of([row("How do I bake bread?")]).without([row(dressed)]) == ()


def test_a_prompt_with_another_response_is_dropped() -> None:
    """A row with a prompt of the test file is dropped for any response."""
    tests = TestTexts.of([row("What is glue?", "A paste.")])
    assert tests.without([row("What is glue?", "Never mind."), row("What is tape?", "A paste.")])[
        0
    ].request.prompt == ("What is tape?")


def test_a_text_that_holds_prompt_and_response_is_dropped() -> None:
    """A text joined in one file and split into prompt and response in the other is the same."""
    tests = TestTexts.of([row("What is glue?\nA paste.")])
    assert tests.without([row("What is glue?", "A paste.")]) == ()


def test_other_rows_stay_in_order() -> None:
    """No other row is dropped, and an empty text matches no text."""
    rows = [row("a"), row("b"), row(""), row("c")]
    assert TestTexts.of([row("b"), row(" ")]).without(rows) == (rows[0], rows[2], rows[3])


def test_rows_of_one_prompt_are_a_group() -> None:
    """Rows of one prompt form a group, which folds keep together."""
    assert prompt_group(row("Why?", "Because.")) == prompt_group(row("why? ", "No reason."))
    assert prompt_group(row("Why?")) != prompt_group(row("Why not?"))


def test_bad_rows_of_a_test_file_are_told(tmp_path: Path) -> None:
    """A test row that cannot be read is reported, because its text is not guarded."""
    path = tmp_path / "test.jsonl"
    path.write_text('{"text": "What is glue?"}\nnot JSON\n', encoding="utf-8")
    found = TestTexts.read([path])
    assert found.texts == {"what is glue?"}
    assert len(found.faults) == 1
    assert "test.jsonl:2" in found.faults[0]


@pytest.mark.parametrize(
    "words", ['Say "no", don\'t stop.', "One line\nand a\ttab", "Né <b>ici</b>"]
)
def test_words_are_the_same_words_in_json_in_python_and_in_html(words: str) -> None:
    """An injection in two notations is one injection, so the two are kept in one fold."""
    for written in (json.dumps(words, ensure_ascii=False), repr(words), html.escape(words)):
        assert words_group(written) == words_group(words)
    assert words_group(words) != words_group(f"{words} now")
