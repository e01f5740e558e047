"""Rows, tokens and bytes of one run of the graph: at the maximum, and one beyond it."""

from collections.abc import Mapping, Sequence

import pytest

from layerguard.runtime import Guard
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.model import backbone as module
from layerguard.runtime.text.request import request
from layerguard.runtime.types import Array, Tap
from tests.tiny import LAYERS, WIDTH, WORDS, make_bundle

_ORDINARY = WORDS[5:]


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> Guard:
    """A guard on a graph that gives every token's states."""
    folder = tmp_path_factory.mktemp("states") / "bundle"
    return Guard.load(make_bundle(folder, mode="states"), threads=1)


def texts(count: int, words: int) -> list[str]:
    """This many different texts of this many words."""
    found = []
    for number in range(count):
        first, second = divmod(number, len(_ORDINARY))
        found.append(" ".join([_ORDINARY[first], _ORDINARY[second], *["rain"] * (words - 2)]))
    return found


def runs(
    guard: Guard, some: Sequence[str], tap: Tap, patch: pytest.MonkeyPatch
) -> list[tuple[int, ...]]:
    """The shapes [rows, tokens] of the runs that read the texts."""
    shapes: list[tuple[int, ...]] = []
    run = guard.backbone.session.run

    def recorded(names: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        shapes.append(feeds["input_ids"].shape)
        return run(names, feeds)

    with patch.context() as context:
        context.setattr(guard.backbone.session, "run", recorded)
        guard.backbone.read([request(text) for text in some], {tap})
    return shapes


@pytest.mark.parametrize("count", [31, 32, 33, 64, 65])
def test_no_run_has_more_than_32_rows(
    guard: Guard, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All runs but the last one have the maximum number of rows."""
    found = runs(guard, texts(count, 4), REGISTRY["lcf"].tap, monkeypatch)
    full, rest = divmod(count, 32)
    assert found == [*[(32, 6)] * full, *[(rest, 6)] * (rest > 0)]


@pytest.mark.parametrize(("most", "rows"), [(47, 5), (48, 6), (49, 6), (53, 6), (54, 6)])
def test_no_run_has_more_tokens_than_its_limit(
    guard: Guard, most: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of eight tokens, padding included: six of them are 48."""
    monkeypatch.setattr(module, "_MAX_BATCH_TOKENS", most)
    found = runs(guard, texts(12, 6), REGISTRY["lcf"].tap, monkeypatch)
    assert found == [(rows, 8)] * (12 // rows) + ([(12 % rows, 8)] if 12 % rows else [])


def test_padding_counts(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rows of six tokens and one of nine are 36 with their padding."""
    some = [*texts(3, 4), *texts(1, 7)]
    for most, expected in ((36, [(4, 9)]), (35, [(3, 6), (1, 9)])):
        monkeypatch.setattr(module, "_MAX_BATCH_TOKENS", most)
        assert runs(guard, some, REGISTRY["lcf"].tap, monkeypatch) == expected


def test_a_row_beyond_the_limit_runs_alone(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that exceeds the maximum gets a run of its own."""
    monkeypatch.setattr(module, "_MAX_BATCH_TOKENS", 5)
    assert runs(guard, texts(3, 4), REGISTRY["lcf"].tap, monkeypatch) == [(1, 6)] * 3


def test_token_states_are_held_to_their_bytes(
    states: Guard, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of six tokens, of four states of sixteen float32: five rows are 7680 bytes.

    Pooled outputs have no such limit.
    """
    five = 5 * 6 * (LAYERS + 1) * WIDTH * 4
    for most, rows in ((five - 1, 4), (five, 5), (five + 1, 5)):
        monkeypatch.setattr(module, "_MAX_STATE_BYTES", most)
        found = runs(states, texts(20, 4), REGISTRY["lcf"].tap, monkeypatch)
        assert found == [(rows, 6)] * (20 // rows)
        assert runs(guard, texts(20, 4), REGISTRY["lcf"].tap, monkeypatch) == [(20, 6)]
