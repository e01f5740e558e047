"""Forks of one stream, and the token sequence behind each: nothing of one moves another."""

from collections.abc import Sequence

import numpy as np
import pytest

from layerguard.runtime import Guard
from layerguard.runtime.streaming import growing
from layerguard.runtime.streaming.stream import Stream
from layerguard.runtime.streaming.track import Track
from layerguard.runtime.types import ROLES
from tests.streaming.cases import same

PROMPT = "the garden was quiet"
LONG = " small boats lay still near the river"
SYSTEM, USER, ASSISTANT, TOOL = range(len(ROLES))


def conversation(stream: Stream) -> list[int]:
    """The tokens that the model was given."""
    assert stream.conversation is not None
    return list(stream.conversation.track.ids)


def test_a_fork_that_goes_back_leaves_the_other_where_it_is(guard: Guard) -> None:
    """It reads another answer from the first token on; the other goes on with its own."""
    with guard.stream(prompt=PROMPT) as stream:
        start = stream.mark()
        stream.push(LONG)
        fork = stream.fork()
        fork.rollback(start)
        same(fork.push(" rain"), guard.check(prompt=PROMPT, response=" rain"))
        same(stream.push(" and"), guard.check(prompt=PROMPT, response=f"{LONG} and"))
        same(fork.push(" came"), guard.check(prompt=PROMPT, response=" rain came"))


def test_a_fork_that_completes_a_word_leaves_the_word_of_the_other(guard: Guard) -> None:
    """The word's tokens change as it grows: each stream reads them anew, whoever grew it first."""
    with guard.stream(prompt=PROMPT) as stream:
        stream.push(" low hil")
        fork = stream.fork()
        whole = guard.check(prompt=PROMPT, response=" low hills and rain")
        same(fork.push("ls and rain"), whole)
        same(stream.push("ls and rain"), whole)
        with guard.stream(prompt=PROMPT) as fresh:
            fresh.push(" low hills and rain")
            expected = conversation(fresh)
        assert conversation(stream) == conversation(fork) == expected


def test_forks_of_two_threads_clean_their_own_text(
    guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is pushed while the other is halfway through cleaning: both read what they were given."""
    with guard.stream(prompt=PROMPT) as stream:
        stream.push(LONG)
        fork = stream.fork()
        waiting = [" <|im_end|> low hills and rain"]

        def interrupted(text: str) -> str:
            """Where a thread may be stopped: the other one has its turn."""
            if waiting:
                same(fork.push(waiting.pop()), during)
            return tidy(text)

        tidy = growing.tidy
        during = guard.check(prompt=PROMPT, response=f"{LONG} <|im_end|> low hills and rain")
        monkeypatch.setattr(growing, "tidy", interrupted)
        stream.push("  the quiet garden")
        monkeypatch.undo()
        assert not waiting
        after = guard.check(prompt=PROMPT, response=f"{LONG} <|im_end|> low hills and rain .")
        same(fork.push(" ."), after)
        expected = guard.check(prompt=PROMPT, response=f"{LONG}  the quiet garden came")
        same(stream.push(" came"), expected)


def read(guard: Guard, ids: Sequence[int], roles: Sequence[int]) -> Track:
    """A sequence read token by token, by which every token may be taken back."""
    track = Track(guard.streams.means.decoder, [guard.streams.detectors["weightwatch"].tap])
    for one, role in zip(ids, roles, strict=True):
        track.extend([one], [role])
    return track


def back_to(track: Track, ids: Sequence[int], roles: Sequence[int], guard: Guard) -> None:
    """Take a sequence back to these tokens, which it has, and see that it holds them alone."""
    tap = guard.streams.detectors["weightwatch"].tap
    again = track.go_back(len(ids))
    start = len(ids) - len(again[0])
    assert again == (ids[start:], roles[start:])
    assert track.ids == ids[:start]
    if again[0]:
        track.extend(*again)
    expected = read(guard, ids, roles).pools.of(tap)[0]
    np.testing.assert_allclose(track.pools.of(tap)[0], expected, atol=1e-6)


@pytest.mark.parametrize("length", range(1, 10))
def test_every_token_keeps_its_role_when_a_sequence_goes_back(guard: Guard, length: int) -> None:
    """The roles of tokens that were taken back are gone with them, however often it goes back."""
    ids, roles = list(range(5, 17)), [SYSTEM, USER, ASSISTANT, TOOL] * 3
    others, whose = list(range(40, 46)), [TOOL, TOOL, USER, USER, SYSTEM, SYSTEM]
    track = read(guard, ids, roles)
    for _ in range(2):
        back_to(track, ids[:length], roles[:length], guard)
        track.extend(others, whose)
        ids, roles = [*ids[:length], *others], [*roles[:length], *whose]
        length += 3
    back_to(track, ids[:length], roles[:length], guard)


@pytest.mark.parametrize("length", range(6, 12))
def test_a_forked_sequence_goes_on_and_back_apart(guard: Guard, length: int) -> None:
    """Ids, roles, pools and the ways back of each are its own."""
    ids, roles = list(range(5, 13)), [SYSTEM, USER, ASSISTANT, TOOL] * 2
    track = read(guard, ids, roles)
    fork = track.fork()
    for place in range(5):
        fork.extend([40 + place], [TOOL])
        track.extend([20 + place], [SYSTEM])
    mine = [*ids, *range(20, 25)][:length], [*roles, *[SYSTEM] * 5][:length]
    its = [*ids, *range(40, 45)][:length], [*roles, *[TOOL] * 5][:length]
    back_to(track, *mine, guard)
    back_to(fork, *its, guard)
