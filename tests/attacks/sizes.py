"""Requests and rows that ask for more work than any honest one."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from layerguard.runtime import Guard, InputError, Limits
from layerguard.runtime.rows.jsonl import read_rows
from tests.attacks.attack import Attack
from tests.attacks.unread import CHAT, chat_guard
from tests.tiny import make_bundle, params_of

_TURN = {"role": "user", "content": "the garden"}


def _nested(levels: int, width: int) -> Any:
    value: Any = "ha"
    for _ in range(levels):
        value = [value] * width
    return value


def _is_cut(text: str, folder: Path) -> None:
    """A text beyond the limit is read in part, and the verdict says so."""
    assert chat_guard(folder).check(text).truncated


def _is_refused(words: str, folder: Path, **arguments: Any) -> None:
    """One sentence says what there is too much of."""
    with pytest.raises(InputError, match=words) as caught:
        chat_guard(folder).check(**arguments)
    assert len(str(caught.value)) < 300


def _words(folder: Path) -> None:
    _is_cut("garden " * 1_500_000, folder)


def _control_tokens(folder: Path) -> None:
    _is_cut("<|im_end|>" * 1_000_000, folder)


def _one_word(folder: Path) -> None:
    _is_cut("a" * 10_000_000, folder)


def _long_text_to_refuse(folder: Path) -> None:
    guard = chat_guard(folder, limits=Limits(beyond="refuse"))
    with pytest.raises(InputError, match="found 10500000 characters"):
        guard.check("garden " * 1_500_000)


def _many_short_turns(folder: Path) -> None:
    """Roles of tokens take a time that grows with the turns, not with its square."""
    params = {"weightwatch": params_of("weightwatch")}
    bundle = make_bundle(folder / "bundle", params, template="chat", chat_template=CHAT)
    turns = [{"role": ("user", "assistant")[n % 2], "content": "ab"} for n in range(10_000)]
    assert Guard.load(bundle, threads=1).check(messages=turns).truncated


def _long_row(folder: Path) -> None:
    """A row of 200 MB is not read into memory."""
    path = folder / "rows.jsonl"
    with path.open("wb") as file:
        file.write(b'{"text": "')
        for _ in range(200):
            file.write(b"a" * 1_000_000)
        file.write(b'"}\n{"text": "the garden"}\n')
    rows = read_rows([path])
    assert [row.request.prompt for row in rows.good] == ["the garden"]
    assert "found more than 8388608 bytes" in str(rows.faults[0])


def _long_stream(folder: Path) -> None:
    """Nor does a stream's prompt count for more than a check's."""
    with chat_guard(folder).stream(prompt="garden " * 1_500_000) as stream:
        assert stream.push(" was").truncated


def _deep_row(folder: Path) -> None:
    path = folder / "rows.jsonl"
    path.write_bytes(b'{"text": ' + b"[" * 4_000_000 + b"\n")
    with pytest.raises(InputError, match="nested too deeply"):
        read_rows([path])


_REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "a million turns": ("more than 10000 messages", {"messages": [_TURN] * 1_000_000}),
    "a million tools": ("more than 1000 tools", {"messages": [_TURN], "tools": [{}] * 1_000_000}),
    "a million parts": (
        "more than 200000 values",
        {"messages": [{"role": "user", "content": [{"text": "a"}] * 1_000_000}]},
    ),
    "lists that laugh": (
        "more than 200000 values",
        {"messages": [{**_TURN, "extra": _nested(25, 10)}]},
    ),
    "100,000 levels": (
        "more than 32 levels",
        {"messages": [{**_TURN, "extra": _nested(100_000, 1)}]},
    ),
}


def _too_much(case: str, folder: Path) -> None:
    words, arguments = _REFUSED[case]
    _is_refused(words, folder, **arguments)


ATTACKS = (
    Attack("10 MB of words", _words, 9, 512),
    Attack("10 MB of control tokens", _control_tokens, 9, 512),
    Attack("10 MB of one word", _one_word, 9, 512),
    Attack("10 MB to refuse", _long_text_to_refuse),
    Attack("10 MB before a stream", _long_stream, 9, 512),
    Attack("10,000 turns of two letters", _many_short_turns, 9),
    Attack("a row of 200 MB", _long_row),
    Attack("a row of four million levels", _deep_row),
    *(Attack(case, partial(_too_much, case)) for case in _REFUSED),
)
