"""Trait files and run files: the published form is read, and all faults are reported."""

import json
import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layerguard.calibration.drift.runs import Checkpoint, read_runs, runs_bytes
from layerguard.calibration.drift.traits import ALIGNMENT_TRAITS, TraitFile, read_traits
from layerguard.runtime.errors import InputError
from tests.drift_monitors import trait_values, write_runs, write_traits
from tests.runtime.tamper import within

OWN = Path(__file__).parents[3] / "calibration" / "prompts" / "traits.yaml"
ROW = {"bundle": "b", "run": "r", "perturbation": "p", "step": 10, "misalignment": 0.25}


def refusal(read: Callable[[Path], object], path: Path) -> str:
    """The error message for a file."""
    with pytest.raises(InputError) as caught:
        read(path)
    return str(caught.value)


@pytest.fixture(scope="module")
def own() -> TraitFile:
    """The project's own trait file."""
    return read_traits(OWN)


def test_own_traits_are_the_seven_in_the_published_order(own: TraitFile) -> None:
    """The project's own traits have five system prompts for each pole."""
    assert tuple(own.traits) == ALIGNMENT_TRAITS
    for trait in own.traits.values():
        assert len(trait.positive_system_prompts) == len(trait.negative_system_prompts) == 5


def test_own_prompts_are_as_many_as_published(own: TraitFile) -> None:
    """There are 30 questions and 115 evaluation prompts in five categories, without duplicates."""
    assert len(own.questions) == 30
    assert {name: len(prompts) for name, prompts in own.eval_prompts.items()} == {
        "technical": 25, "ethical": 25, "emotional": 25, "casual": 25, "adversarial": 15,
    }  # fmt: skip
    poles = [
        text
        for trait in own.traits.values()
        for text in (*trait.positive_system_prompts, *trait.negative_system_prompts)
    ]
    everything = Counter(
        re.sub(r"\W+", " ", text.casefold()) for text in (*poles, *own.questions, *own.prompts())
    )
    assert everything.most_common(1)[0][1] == 1


def test_length_says_nothing_of_the_pole(own: TraitFile) -> None:
    """The lengths of the system prompts of both poles of a trait differ by less than a fifth."""
    for name, trait in own.traits.items():
        first, second = (
            sum(map(len, prompts))
            for prompts in (trait.positive_system_prompts, trait.negative_system_prompts)
        )
        assert 0.8 <= first / second <= 1.25, name


@pytest.mark.shared
def test_the_published_file_is_read(shared: Path, own: TraitFile) -> None:
    """The published file has sixteen traits, of which seven are monitored by default."""
    published = read_traits(shared / "data" / "traits_reference.yaml")
    assert len(published.traits) == 16
    assert tuple(published.chosen(())) == ALIGNMENT_TRAITS
    assert tuple(published.chosen(("warmth", "honesty"))) == ("warmth", "honesty")
    assert len(published.prompts()) == 115
    assert set(published.prompts()).isdisjoint(own.prompts())
    assert set(published.questions).isdisjoint(own.questions)


def test_a_file_without_the_seven_gives_all_its_traits(tmp_path: Path) -> None:
    """All traits are chosen in file order; unknown and duplicate names are refused."""
    found = read_traits(write_traits(tmp_path / "t.yaml"))
    assert list(found.chosen(())) == ["honesty", "sycophancy"]
    with pytest.raises(InputError, match="found envy; expected different names out of honesty"):
        found.chosen(("envy", "honesty"))
    with pytest.raises(InputError, match="expected different names"):
        found.chosen(("honesty", "honesty"))


def test_the_hash_is_of_the_texts(tmp_path: Path) -> None:
    """The hash does not depend on comments and layout, but on every prompt."""
    one = read_traits(write_traits(tmp_path / "one.yaml"))
    text = (tmp_path / "one.yaml").read_text()
    (tmp_path / "two.yaml").write_text(f"# a comment\n{text}\n")
    (tmp_path / "three.yaml").write_text(text.replace("quiet rain", "quiet rains"))
    assert read_traits(tmp_path / "two.yaml").sha256() == one.sha256()
    assert read_traits(tmp_path / "three.yaml").sha256() != one.sha256()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"questions": ["a garden"]}, "questions has 1; expected 2 or more"),
        ({"questions": ["a", " "]}, "questions: an empty text"),
        ({"questions": ["a", "a"]}, "questions: 'a' occurs 2 times"),
        ({"questions": "a garden"}, "t.yaml.questions: found 'a garden'; expected a list"),
        ({"questions": ["a", 7]}, "t.yaml.questions[1]: found 7; expected a text"),
        ({"eval_prompts": {}}, "eval_prompts is empty"),
        ({"traits": {}}, "traits is empty"),
        ({"traits": {1: {}}}, "t.yaml.traits.1: no key 'description'"),
        ({"trait": {}}, "unknown key 'trait'"),
    ],
)
def test_malformed_trait_files_are_explained(
    tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    """What was found, where, and what was expected."""
    path = write_traits(tmp_path / "t.yaml", trait_values(**change))
    assert expected in refusal(read_traits, path)


_LAUGHS = b"a0: &a0 [lol, lol]\n" + b"".join(
    b"a%d: &a%d [%s]\n" % (i, i, b", ".join([b"*a%d" % (i - 1)] * 10)) for i in range(1, 40)
)
"""Forty lines that stand for 10^39 texts."""


def test_unequal_poles_are_refused(tmp_path: Path) -> None:
    """Both poles must have the same number of system prompts."""
    values = trait_values()
    values["traits"]["honesty"]["positive_system_prompts"].append("the rain")
    said = refusal(read_traits, write_traits(tmp_path / "t.yaml", values))
    assert "traits.honesty has 4 positive and 3 negative system prompts" in said


def test_all_faults_of_a_trait_file_are_listed(tmp_path: Path) -> None:
    """One message lists all faults of a trait file."""
    values = trait_values(questions=["a"], eval_prompts={"x": ["y", "y"]})
    said = refusal(read_traits, write_traits(tmp_path / "t.yaml", values))
    assert said.count("\n  - ") == 2


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"traits: [", "not YAML of plain values"),
        (b"!!python/object/apply:os.system ['true']", "not YAML of plain values"),
        (b"traits: &a [*a]", "not YAML of plain values"),
        (_LAUGHS, "found the alias *a0; write the text out"),
        (b"traits: " + b"[" * 100_000, "not YAML of plain values"),
        (b"traits: 2020-01-01", "not YAML of plain values"),
        (b"\xff\xfe", "not UTF-8 at byte 0"),
        (b"", "found None; expected an object"),
        (b"x" * (4 << 20) + b"x", "more than 4194304 bytes"),
    ],
    ids=[
        "cut off",
        "a program",
        "a circle",
        "laughs",
        "deep",
        "a date",
        "bytes",
        "empty",
        "too long",
    ],
)
def test_what_is_no_trait_file_is_refused(tmp_path: Path, data: bytes, expected: str) -> None:
    """Other YAML is refused without running code, and reading terminates."""
    path = tmp_path / "t.yaml"
    path.write_bytes(data)
    with within(10):
        assert expected in refusal(read_traits, path)


def test_a_pipe_is_no_trait_file(tmp_path: Path) -> None:
    """A pipe is refused at once; the reader does not wait for a writer."""
    os.mkfifo(tmp_path / "t.yaml")
    with within(5):
        assert "not a file; expected a trait file" in refusal(read_traits, tmp_path / "t.yaml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A missing trait file or run file is named."""
    assert "No such file" in refusal(read_traits, tmp_path / "none")
    assert "No such file" in refusal(read_runs, tmp_path / "none")


def test_rows_are_read_beside_their_bundles(tmp_path: Path) -> None:
    """Relative paths start at the file's folder, absolute ones stay; empty lines do not count."""
    rows = [ROW, {**ROW, "step": 20, "bundle": "/elsewhere/b", "misalignment": 1}]
    path = write_runs(tmp_path / "runs.jsonl", rows)
    path.write_text(path.read_text().replace("\n", "\n\n"))
    assert read_runs(path) == (
        Checkpoint(str(tmp_path / "b"), "r", "p", 10, 0.25),
        Checkpoint("/elsewhere/b", "r", "p", 20, 1.0),
    )


def test_where_bundles_lie_is_no_part_of_the_labels() -> None:
    """The hash of the labels depends on the rates, but not on the folder."""
    here, there = Checkpoint("a", "r", "p", 1, 0.5), Checkpoint("b", "r", "p", 1, 0.5)
    assert runs_bytes([here]) == runs_bytes([there])
    assert runs_bytes([here]) != runs_bytes([Checkpoint("a", "r", "p", 1, 0.25)])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"step": 0}, "runs.jsonl:2: step is 0; expected 1 or more"),
        ({"step": 1.5}, "row.step: found 1.5; expected a whole number"),
        ({"step": "final"}, "row.step: found 'final'"),
        ({"misalignment": 7}, "misalignment is 7.0; expected a share from 0 to 1"),
        ({"misalignment": float("nan")}, "row.misalignment: found nan; expected a finite number"),
        ({"run": " "}, "run is empty"),
        ({"extra": 1}, "unknown key 'extra'"),
        ({"bundle": None}, "row.bundle: found None; expected a text"),
        ({}, "run 'r' has step 10 in line 1 too"),
        ({"step": 20, "perturbation": "q"}, "run 'r' is of 'q' here and of 'p' before"),
    ],
)
def test_malformed_rows_are_explained(
    tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    """The message has the line, what was found and what was expected."""
    path = write_runs(tmp_path / "runs.jsonl", [ROW, {**ROW, **change}])
    assert expected in refusal(read_runs, path)


def test_every_bad_row_is_listed(tmp_path: Path) -> None:
    """All rows are read before the error; a long list of faults is cut."""
    path = tmp_path / "runs.jsonl"
    path.write_text("not json\n[]\n" + f"{json.dumps({**ROW, 'step': -1})}\n" * 30)
    said = refusal(read_runs, path)
    assert "runs.jsonl:1: not JSON" in said
    assert "runs.jsonl:2: row: found []; expected an object" in said
    assert "and 12 more" in said


def test_an_empty_run_file_is_refused(tmp_path: Path) -> None:
    """An empty run file is refused; the message says what was expected."""
    path = tmp_path / "runs.jsonl"
    path.write_text("\n")
    assert "found no row" in refusal(read_runs, path)
