"""Streams with rollbacks, within the window and beyond it, compared with a check."""

import numpy as np
import pytest

from layerguard.runtime import Guard, Verdict
from layerguard.runtime.streaming.stream import Mark
from tests.tiny_decoder import make_bundle

PROMPT = "rain"
WORDS = ("the", "quiet", "garden", "lay", "near", "river", "and", "small", "boats", "came", "雨")
_WINDOW = 48


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Guard:
    """A guard whose window a few words overflow."""
    folder = tmp_path_factory.mktemp("narrow") / "bundle"
    return Guard.load(make_bundle(folder, max_tokens=_WINDOW), threads=1)


def fresh(guard: Guard, text: str) -> Verdict:
    """The verdict of a new check, without earlier state."""
    return guard.check(prompt=PROMPT, response=text)


def alike(found: Verdict, expected: Verdict) -> None:
    """Verdicts are equal; scores may differ by the rounding of float32 sums."""
    assert found.unread_tokens == 0
    for name, reading in expected.readings.items():
        assert found.readings[name].score == pytest.approx(reading.score, rel=1e-5, abs=1e-5), name
    for what in ("flagged", "status", "tokens", "truncated"):
        assert getattr(found, what) == getattr(expected, what), what


def test_on_to_a_text_within_the_window_that_was_never_read(narrow: Guard) -> None:
    """Beyond the window no token is read: a mark within it may lead to tokens that never were.

    The text beyond the window ends in one long word, so that it has no cut behind the mark's text.
    """
    text = " the quiet garden lay near qz"
    with narrow.stream(prompt=PROMPT, stride=1) as stream:
        ahead = stream.fork()
        ahead.push(text)
        mark = ahead.mark()
        assert stream.push(text + "qz" * 60).truncated
        stream.rollback(mark)
        alike(stream.push("x"), fresh(narrow, text + "x"))
        assert stream.rescoring is None


def test_back_to_before_the_window_and_over_it_again(narrow: Guard) -> None:
    """Each verdict equals that of a new stream."""
    with narrow.stream(prompt=PROMPT, stride=1) as stream:
        stream.push(" the quiet")
        mark = stream.mark()
        for word in ("garden", "river", "雨"):
            long = f" {word} came" * 20
            alike(stream.push(long), fresh(narrow, " the quiet" + long))
            assert stream.rescoring is not None
            beyond = stream.mark()
            stream.rollback(mark)
            alike(stream.push(f" {word}"), fresh(narrow, f" the quiet {word}"))
            assert stream.rescoring is None
            stream.rollback(beyond)
            alike(stream.push("!"), fresh(narrow, f" the quiet{long}!"))
            assert stream.rescoring is not None
            stream.rollback(mark)


@pytest.mark.parametrize("seed", range(4))
def test_any_way_there_gives_what_a_fresh_stream_gives(narrow: Guard, seed: int) -> None:
    """Pushes, marks and rollbacks in any order, across the window."""
    rng = np.random.default_rng(seed)
    marks: list[tuple[Mark, str]] = []
    text, states = "", set()
    with narrow.stream(prompt=PROMPT, stride=1) as stream:
        marks.append((stream.mark(), text))
        for _ in range(30):
            step = rng.random()
            if step < 0.45:
                chunk = "".join(f" {word}" for word in rng.choice(WORDS, rng.integers(1, 13)))
                stream.push(chunk)
                text += chunk
            elif step < 0.65:
                marks.append((stream.mark(), text))
            else:
                mark, text = marks[rng.integers(len(marks))]
                stream.rollback(mark)
            alike(stream.verdict, fresh(narrow, text))
            states.add(stream.rescoring is None)
    assert states == {True, False}
