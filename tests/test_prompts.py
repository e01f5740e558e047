"""The prompts in calibration/prompts: well-formed, distinct, varied, and of comparable length."""

import json
import re
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from layerguard.calibration.rows.leakage import TestTexts
from layerguard.calibration.rows.traffic import LEAST_TEXTS
from layerguard.runtime.rows.jsonl import read_rows

PROMPTS = Path(__file__).parents[1] / "calibration" / "prompts"
BAD = {"harmful", "jailbreak", "injection"}
FILES = ("clean", "harmful", "clean-languages", "harmful-languages", "fresh")
EVERYDAY = Path(__file__).parent / "truth" / "everyday.jsonl"

Row = dict[str, Any]


def rows(name: str) -> list[Row]:
    """All rows of ``calibration/prompts/<name>.jsonl``, in file order."""
    text = (PROMPTS / f"{name}.jsonl").read_text(encoding="utf-8")
    # Only "\n" ends a row: str.splitlines would also cut at U+2028 inside a text.
    return [json.loads(line) for line in text.removesuffix("\n").split("\n")]


def normalised(text: str) -> str:
    """Letters and digits only, case folded: two texts that differ in punctuation are one text."""
    return re.sub(r"[\W_]+", " ", text.casefold()).strip()


def word_counts(prompts: list[Row]) -> list[int]:
    """Words per prompt, split at white space."""
    return [len(row["text"].split()) for row in prompts]


@pytest.mark.parametrize("name", FILES)
def test_every_row_has_the_four_keys_in_order(name: str) -> None:
    """A row is id, text, label, domain; texts are non-empty and carry no outer white space.

    Clean rows in other languages have one more, the language.
    """
    source = ["source"] if name == "clean-languages" else []
    for row in rows(name):
        assert list(row) == ["id", "text", "label", "domain", *source], row
        assert row["id"].startswith(f"{name}-")
        assert row["text"], row["id"]
        assert row["text"] == row["text"].strip(), row["id"]
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", row["domain"]), row["id"]


@pytest.mark.parametrize("name", FILES)
def test_label_says_what_the_domain_says(name: str) -> None:
    """Exactly the domains harmful, jailbreak and injection are labelled 1."""
    for row in rows(name):
        assert row["label"] == int(row["domain"] in BAD), row["id"]


def test_clean_and_harmful_files_hold_one_label_each() -> None:
    """clean.jsonl can calibrate without a filter: nothing in it is labelled 1."""
    for suffix in ("", "-languages"):
        assert {row["label"] for row in rows(f"clean{suffix}")} == {0}
        assert {row["label"] for row in rows(f"harmful{suffix}")} == {1}


def test_ids_and_texts_are_unique_across_all_files() -> None:
    """No id and no text, punctuation and case aside, occurs twice, so fresh prompts are fresh."""
    everything = [row for name in FILES for row in rows(name)]
    assert [i for i, n in Counter(row["id"] for row in everything).items() if n > 1] == []
    texts = Counter(normalised(row["text"]) for row in everything)
    assert "" not in texts
    assert [text for text, n in texts.items() if n > 1] == []


def test_no_prompt_is_one_of_the_everyday_test() -> None:
    """``tests.truth.everyday`` measures texts that no guard has seen."""
    tested = TestTexts.read([EVERYDAY])
    assert tested.texts
    given = [row for name in FILES for row in read_rows([PROMPTS / f"{name}.jsonl"]).good]
    assert len(tested.without(given)) == len(given)
    letters = {normalised(text) for text in tested.texts}
    assert letters.isdisjoint(normalised(row.request.prompt) for row in given)


def test_other_languages_are_many_and_of_both_kinds() -> None:
    """Five languages can be left out as sources; the domains are those of the other clean rows."""
    clean, harmful = rows("clean-languages"), rows("harmful-languages")
    languages = Counter(row["source"] for row in clean)
    assert len(languages) == 30
    assert {name for name, count in languages.items() if count >= LEAST_TEXTS} == {
        "french", "german", "italian", "portuguese", "spanish"
    }  # fmt: skip
    assert {row["domain"] for row in clean} == {row["domain"] for row in rows("clean")}
    assert {row["domain"] for row in harmful} == BAD
    counts = word_counts([row for row in clean if row["source"] == "german"])
    assert min(counts) == 1
    assert max(counts) > 60


def test_clean_prompts_are_many_and_spread_over_domains() -> None:
    """At least 640 prompts, 14 domains of 25 or more, 60 that sound alarming, 150 everyday ones."""
    domains = Counter(row["domain"] for row in rows("clean"))
    assert domains.total() >= 640
    assert domains.pop("alarming-words") >= 60
    assert domains.pop("everyday") >= 150
    assert len(domains) >= 14
    assert min(domains.values()) >= 25
    assert max(domains.values()) <= 1.5 * min(domains.values())


def test_any_prefix_of_the_clean_prompts_mixes_domains() -> None:
    """The first 100 clean rows meet every domain, so a short calibration is not a narrow one."""
    clean = rows("clean")
    assert {row["domain"] for row in clean[:100]} == {row["domain"] for row in clean}


def test_harmful_prompts_cover_three_kinds() -> None:
    """Requests, jailbreaks and injections, at least 30 of each."""
    domains = Counter(row["domain"] for row in rows("harmful"))
    assert set(domains) == BAD
    assert min(domains.values()) >= 30


def test_length_gives_little_away() -> None:
    """Medians within a factor of 2.5; the length alone separates with an AUC of 0.65 at most."""
    clean, harmful = word_counts(rows("clean")), word_counts(rows("harmful"))
    assert 1 / 2.5 <= median(harmful) / median(clean) <= 2.5
    wins = sum((h > c) + (h == c) / 2 for h in harmful for c in clean)
    assert 0.35 <= wins / (len(harmful) * len(clean)) <= 0.65


@pytest.mark.parametrize("name", ["clean", "harmful"])
def test_prompts_reach_from_a_line_to_a_page(name: str) -> None:
    """The shortest prompt has five words at most, the longest at least two hundred."""
    counts = word_counts(rows(name))
    assert min(counts) <= 5
    assert max(counts) >= 200


def test_many_clean_prompts_carry_a_text_along() -> None:
    """At least 60 clean prompts bring a paragraph, table, code or mail of three lines or more."""
    assert sum(row["text"].count("\n") >= 2 for row in rows("clean")) >= 60


def test_the_demo_table_is_balanced() -> None:
    """24 fresh prompts: twelve clean, four of them alarming in words, and four of each bad kind."""
    domains = Counter(row["domain"] for row in rows("fresh"))
    assert domains.total() == 24
    assert {kind: domains[kind] for kind in BAD} == dict.fromkeys(BAD, 4)
    assert domains["alarming-words"] == 4


def test_short_prompts_are_of_both_kinds() -> None:
    """A greeting is nothing unusual, nor is a short text harmless for its length."""
    clean, harmful = word_counts(rows("clean")), word_counts(rows("harmful"))
    assert sum(count <= 3 for count in clean) >= 60
    assert sum(count <= 8 for count in harmful) >= 25


def test_the_readme_counts_what_the_files_hold() -> None:
    """Rows and labels in the README's table, and its numbers in the text, are the files'."""
    readme = (PROMPTS / "README.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| `([\w-]+)\.jsonl` \| (\d+) \| (\w+) \|", readme, re.MULTILINE)
    counted = [(name, str(len(rows(name)))) for name in FILES]
    assert [(name, count) for name, count, _ in table] == counted
    for name, _, label in table:
        labels = {row["label"] for row in rows(name)}
        assert labels == ({0, 1} if label == "both" else {int(label)})
    assert re.findall(r"(\d+) domains", readme) == [str(len({r["domain"] for r in rows("clean")}))]
    assert re.findall(r"(\d+) harmful prompts", readme) == [str(len(rows("harmful")))]
