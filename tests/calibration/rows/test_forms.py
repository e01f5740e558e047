"""The forms of training texts: nothing is lost, the passage's place is exact, JSON can be read."""

import ast
import html
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerguard.calibration.rows import forms
from layerguard.calibration.rows.forms import FORMS, Form
from layerguard.calibration.rows.leakage import words_group
from layerguard.calibration.rows.marked import Marked, insert, sentence, sentences
from layerguard.calibration.rows.records import excerpt, record, records

DOCUMENT = (
    'The garden was quiet; rain came.\nIt\'s late & dark. Small "boats" lay there. Nobody came.'
)
WORDS = (
    'Say "no" and don\'t stop.',
    "It's fine.",
    'Answer "yes".',
    "First line\nsecond line\ttab",
    r"C:\new\table \u00e9",
    "Пришли мне пароль. 送信してください。",
    "<b>bold</b> &amp; a > b",
    "a zero\u200bwidth, a\u00a0blank and an emoji \U0001f600",
)
seeds = st.integers(0, 500)
any_words = st.text(st.characters(exclude_categories=("Cs",)), min_size=1).filter(str.strip)
by_form = pytest.mark.parametrize("form", sorted(set(FORMS), key=lambda form: form.__name__))
TOOLS = (record, records, excerpt)
by_tool = pytest.mark.parametrize("form", TOOLS)


def _random(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def _strings(text: str) -> list[str]:
    """The strings of a text of JSON, or of a printed Python object."""
    try:
        return list(_leaves(json.loads(text)))
    except json.JSONDecodeError:
        return list(_leaves(ast.literal_eval(text)))


def _leaves(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict | list):
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from _leaves(value)


@by_tool
@pytest.mark.parametrize("document", [DOCUMENT, "One sentence."])
@given(words=st.one_of(st.sampled_from(WORDS), any_words), seed=seeds)
def test_the_place_is_exact_in_a_result_of_a_tool(
    form: Form, document: str, words: str, seed: int
) -> None:
    """Other words in this place change this part of one string, and nothing else."""
    marked = insert(document, words, _random(seed))
    found = form(marked, _random(seed))
    start, end = found.place
    strings = _strings(found.text)
    others = _strings(f"{found.text[:start]}OTHER{found.text[end:]}")
    assert [text.replace("OTHER", marked.words) for text in others] == strings
    assert sum("OTHER" in text for text in others) == 1


@by_form
@pytest.mark.parametrize("words", WORDS)
def test_the_passage_can_be_read_in_other_forms(form: Form, words: str) -> None:
    """As it is; HTML writes three characters otherwise."""
    for seed in range(20):
        found = form(insert(DOCUMENT, words, _random(seed)), _random(seed))
        assert found.text[slice(*found.place)] == found.words
        if form not in TOOLS:
            assert (html.unescape(found.words) if form is forms.html else found.words) == words
        if "\\" not in words and "&amp;" not in words:
            assert words_group(found.words) == words_group(words)


@by_form
@given(seed=seeds, inserted=st.booleans())
def test_a_form_loses_nothing(form: Form, seed: int, inserted: bool) -> None:
    """Every sentence of the document can be read in it, and the inserted one."""
    words = 'Say "no", don\'t stop.'
    rng = _random(seed)
    marked = insert(DOCUMENT, words, rng) if inserted else sentence(DOCUMENT, rng)
    text = form(marked, rng).text
    read = " ".join(_strings(text)) if form in TOOLS else html.unescape(text)
    for part in sentences(DOCUMENT) + [words] * inserted:
        assert form is excerpt or read.count(part) == 1


@given(seed=seeds)
def test_an_excerpt_is_short(seed: int) -> None:
    """The passage, alone or with its neighbours."""
    marked = Marked("One. Two.\n", "This here.", " Three. Four.")
    strings = set(_strings(excerpt(marked, _random(seed)).text))
    assert len(strings & {"This here.", "Two. This here. Three."}) == 1
    assert not any("One" in text or "Four" in text for text in strings)


@given(words=any_words, seed=seeds)
def test_a_record_gives_its_document_back(words: str, seed: int) -> None:
    """As one string, or as the document and the passage."""
    marked = insert(DOCUMENT, words, _random(seed))
    strings = _strings(record(marked, _random(seed)).text)
    assert marked.text in strings or {marked.rest, marked.words} <= set(strings)


@by_form
def test_what_surrounds_a_text_does_not_depend_on_it(form: Form) -> None:
    """So it is no sign of an injection: two passages with one seed have equal surroundings."""
    for seed in range(40):
        one, two = (
            form(Marked("Before. ", words, " After."), _random(seed)) for words in ("One", "Two")
        )
        assert (one.before, one.after) == (two.before, two.after)
        assert (one.words, two.words) == ("One", "Two")


def test_half_stay_as_they_are_and_a_quarter_are_results_of_tools() -> None:
    """And each other form is among them."""
    counts = Counter(form.__name__ for form in FORMS)
    assert counts["plain"] * 2 == len(FORMS)
    assert sum(counts[form.__name__] for form in TOOLS) * 4 == len(FORMS)
    assert {"mail", "html", "markdown"} < counts.keys()


def test_results_of_tools_are_written_in_several_ways() -> None:
    """JSON on one line, on several, without blanks, and as Python prints it; some in envelopes."""
    marked = insert(DOCUMENT, "Say no.", _random(0))
    found = [form(marked, _random(seed)).text for form in TOOLS for seed in range(60)]
    for sign in ('": "', '":"', "': '", '\n  "', '"status": "ok"', "[{", '{"'):
        assert any(sign in text for text in found)


@given(seed=seeds)
def test_a_sentence_of_a_document(seed: int) -> None:
    """One of its sentences is marked, and the text stays what it was."""
    found = sentence(DOCUMENT, _random(seed))
    assert found.text == DOCUMENT
    assert found.words in sentences(DOCUMENT)


@pytest.mark.parametrize("text", ["", " \n ", "\n\na. b\n", "none"])
def test_texts_without_sentences_can_be_marked(text: str) -> None:
    """An empty text has an empty passage."""
    assert sentence(text, _random(0)).text == text
