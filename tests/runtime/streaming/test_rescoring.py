"""A text that cannot be read token by token is checked as a whole every few tokens."""

from dataclasses import replace
from pathlib import Path

import pytest

from layerguard.runtime import Guard, Verdict
from layerguard.runtime.bundle.write import seal
from tests import tiny
from tests.runtime.streaming.cases import same
from tests.tiny_decoder import make_all_params, make_bundle

WORDS = ("the", "quiet", "garden", "lay", "near", "river", "and", "small", "boats", "came", "over")


def counted(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of requests in each check of the guard."""
    calls: list[int] = []
    check = guard.check_requests

    def counting(requests: list[object], *arguments: object, **options: object) -> list[Verdict]:
        calls.append(len(requests))
        return check(requests, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(guard, "check_requests", counting)
    return calls


def test_an_encoder_reads_anew_every_stride(
    encoder: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The verdict is at most ``stride - 1`` tokens old, and reports the unread tokens."""
    calls = counted(encoder, monkeypatch)
    with encoder.stream(prompt="a", stride=3) as stream:
        assert "encoder" in str(stream.rescoring)
        for count, word in enumerate(WORDS[:8], start=1):
            verdict = stream.push(f" {word}")
            assert verdict.unread_tokens == count % 3
            read = " ".join(["", *WORDS[: count - count % 3]])
            expected = encoder.check(prompt="a", response=read)
            assert verdict.readings == expected.readings
        assert len(calls) == 1 + 2 + 8
        verdict = stream.finish()
        assert verdict.unread_tokens == 0
        expected = encoder.check(prompt="a", response=" ".join(["", *WORDS[:8]]))
        assert verdict.readings == expected.readings


def test_going_back_where_texts_are_read_anew(encoder: Guard) -> None:
    """A rollback restores the verdict and its number of unread tokens."""
    with encoder.stream(prompt="a", stride=3) as stream:
        stream.push(" the garden")
        mark = stream.mark()
        assert stream.verdict.unread_tokens == 2
        stream.push(" was quiet")
        assert stream.rollback(mark).unread_tokens == 2
        verdict = stream.push(" boats")
        assert verdict.unread_tokens == 0
        expected = encoder.check(prompt="a", response=" the garden boats")
        assert verdict.readings == expected.readings


def test_beyond_the_window(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Token by token within the window; then with the stride, truncated as in ``check``."""
    text = ""
    with guard.stream(prompt="rain", stride=40) as stream:
        while stream.rescoring is None:
            same(stream.verdict, guard.check(prompt="rain", response=text))
            text += f" {WORDS[len(text) % len(WORDS)]}" * 20
            stream.push(text[len(stream._answer.text) :])
        assert "window" in stream.rescoring
        calls = counted(guard, monkeypatch)
        for word in WORDS * 3:
            verdict = stream.push(f" {word}")
            text += f" {word}"
            assert verdict.truncated
            assert verdict.unread_tokens < 40
        assert 1 <= len(calls) <= 1 + len(WORDS) * 3 * 4 / 40
        verdict = stream.finish()
        expected = guard.check(prompt="rain", response=text)
        assert verdict.readings == expected.readings
        assert verdict.tokens == expected.tokens
        mark = stream.mark()
        stream.rollback(mark)
        assert stream.rescoring is not None


def test_back_within_the_window(guard: Guard) -> None:
    """After a rollback into the window, tokens are read one by one again."""
    with guard.stream(prompt="rain", stride=1) as stream:
        stream.push(" small boats")
        mark = stream.mark()
        assert stream.push(" the low hills" * 200).truncated
        stream.rollback(mark)
        same(stream.push(" came"), guard.check(prompt="rain", response=" small boats came"))
        assert stream.rescoring is None


def test_a_prompt_beyond_the_window(guard: Guard) -> None:
    """A long prompt is checked as a whole from the start."""
    prompt = " ".join(WORDS * 40)
    with guard.stream(prompt=prompt, stride=1) as stream:
        assert "window" in str(stream.rescoring)
        verdict = stream.push(" rain")
        assert verdict.readings == guard.check(prompt=prompt, response=" rain").readings
        assert verdict.truncated


def test_ids_where_texts_are_read_anew(encoder: Guard) -> None:
    """Pushed ids are decoded to text."""
    ids = [tiny.WORDS.index(word) for word in ("quiet", "garden", "river")]
    with encoder.stream(prompt="a", stride=2) as stream:
        assert [stream.push([i]).unread_tokens for i in ids] == [1, 0, 1]
        verdict = stream.finish()
    expected = encoder.check(prompt="a", response="quiet garden river")
    assert verdict.readings == expected.readings


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("no decode graph", "no decode graph; export the model again"),
        ("int8", "int8 activations share one scale"),
        ("trajectory", "agent_siren reads the last of the trajectory"),
    ],
)
def test_what_stands_in_the_way(folder: Path, what: str, words: str) -> None:
    """The reason is given, and the verdicts equal those of the check."""
    params = make_all_params()
    if what == "trajectory":
        params = {"agent_siren": tiny.params_of("agent_siren")}
    path = make_bundle(
        folder / what.replace(" ", "_"), params, decode=what != "no decode graph",
        chat_template="{% for turn in messages %}{{ turn.content }}{% endfor %}",
    )  # fmt: skip
    guard = Guard.load(path, threads=1)
    if what == "int8":
        manifest = guard.bundle.manifest
        seal(path, replace(manifest, model=replace(manifest.model, dtype="int8")))
        guard = Guard.load(path, threads=1)
    with guard.stream(prompt="rain", stride=1) as stream:
        assert words in str(stream.rescoring)
        verdict = stream.push(" came over")
        assert verdict.readings == guard.check(prompt="rain", response=" came over").readings
