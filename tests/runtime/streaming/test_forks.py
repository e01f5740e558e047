"""Forks of a stream and of its token sequence are independent of each other."""

from collections.abc import Sequence

import numpy as np
import pytest

from layerguard.runtime import Guard
from layerguard.runtime.streaming import growing_text
from layerguard.runtime.streaming.stream import Stream
from layerguard.runtime.streaming.token_sequence import TokenSequence
from layerguard.runtime.types import ROLES
from tests.runtime.streaming.cases import same

PROMPT = "the garden was quiet"
LONG = " small boats lay still near the river"
SYSTEM, USER, ASSISTANT, TOOL = range(len(ROLES))


def conversation(stream: Stream) -> list[int]:
    """The tokens that the model was given."""
    assert stream.conversation is not None
    return list(stream.conversation.sequence.ids)


def test_a_fork_that_goes_back_leaves_the_other_where_it_is(guard: Guard) -> None:
    """One fork reads another answer from its start; the other continues its own."""
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
    """A push during the cleaning of another fork does not mix their texts."""
    with guard.stream(prompt=PROMPT) as stream:
        stream.push(LONG)
        fork = stream.fork()
        waiting = [" <|im_end|> low hills and rain"]

        def interrupted(text: str) -> str:
            """Stop the thread here and let the other one run."""
            if waiting:
                same(fork.push(waiting.pop()), during)
            return tidy(text)

        tidy = growing_text.tidy
        during = guard.check(prompt=PROMPT, response=f"{LONG} <|im_end|> low hills and rain")
        monkeypatch.setattr(growing_text, "tidy", interrupted)
        stream.push("  the quiet garden")
        monkeypatch.undo()
        assert not waiting
        after = guard.check(prompt=PROMPT, response=f"{LONG} <|im_end|> low hills and rain .")
        same(fork.push(" ."), after)
        expected = guard.check(prompt=PROMPT, response=f"{LONG}  the quiet garden came")
        same(stream.push(" came"), expected)


def read(guard: Guard, ids: Sequence[int], roles: Sequence[int]) -> TokenSequence:
    """A sequence read token by token, so that every token can be rolled back."""
    sequence = TokenSequence(
        guard.streams.resources.decode_graph, [guard.streams.detectors["weightwatch"].tap]
    )
    for one, role in zip(ids, roles, strict=True):
        sequence.extend([one], [role])
    return sequence


def back_to(
    sequence: TokenSequence, ids: Sequence[int], roles: Sequence[int], guard: Guard
) -> None:
    """Roll a sequence back to these tokens, and check that it holds exactly them."""
    tap = guard.streams.detectors["weightwatch"].tap
    again = sequence.roll_back(len(ids))
    start = len(ids) - len(again[0])
    assert again == (ids[start:], roles[start:])
    assert sequence.ids == ids[:start]
    if again[0]:
        sequence.extend(*again)
    expected = read(guard, ids, roles).pools.pooled(tap)[0]
    np.testing.assert_allclose(sequence.pools.pooled(tap)[0], expected, atol=1e-6)


@pytest.mark.parametrize("length", range(1, 10))
def test_every_token_keeps_its_role_when_a_sequence_goes_back(guard: Guard, length: int) -> None:
    """The roles of tokens that were taken back are gone with them, however often it goes back."""
    ids, roles = list(range(5, 17)), [SYSTEM, USER, ASSISTANT, TOOL] * 3
    others, whose = list(range(40, 46)), [TOOL, TOOL, USER, USER, SYSTEM, SYSTEM]
    sequence = read(guard, ids, roles)
    for _ in range(2):
        back_to(sequence, ids[:length], roles[:length], guard)
        sequence.extend(others, whose)
        ids, roles = [*ids[:length], *others], [*roles[:length], *whose]
        length += 3
    back_to(sequence, ids[:length], roles[:length], guard)


@pytest.mark.parametrize("length", range(6, 12))
def test_a_forked_sequence_goes_on_and_back_apart(guard: Guard, length: int) -> None:
    """Ids, roles, pools and snapshots of forks are independent."""
    ids, roles = list(range(5, 13)), [SYSTEM, USER, ASSISTANT, TOOL] * 2
    sequence = read(guard, ids, roles)
    fork = sequence.fork()
    for place in range(5):
        fork.extend([40 + place], [TOOL])
        sequence.extend([20 + place], [SYSTEM])
    mine = [*ids, *range(20, 25)][:length], [*roles, *[SYSTEM] * 5][:length]
    its = [*ids, *range(40, 45)][:length], [*roles, *[TOOL] * 5][:length]
    back_to(sequence, *mine, guard)
    back_to(fork, *its, guard)
