"""Texts, rows and states that are not what they should be."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layerguard.runtime import Bundle, Guard, InputError
from layerguard.runtime.text.request import request
from layerguard.runtime.text.tokens import TokenReader
from tests.attacks.attack import Attack
from tests.attacks.border import printed
from tests.tiny import LAYERS, WIDTH, WORDS, make_bundle


def _guard(folder: Path) -> Guard:
    return Guard.load(make_bundle(folder / "bundle"), threads=1)


def _no_text(folder: Path) -> None:
    guard = _guard(folder)
    for text in ("", " ", " \t\n\r\n "):
        assert guard.check(text).readings == guard.check(" ").readings


def _long_text(windows: Any, folder: Path) -> None:
    guard = Guard.load(make_bundle(folder / "bundle", windows=windows), threads=1)
    verdict = guard.check("garden " * 1_000)
    assert verdict.truncated
    assert verdict.tokens == 1_002


def _typed_control_tokens(folder: Path) -> None:
    reader = TokenReader(Bundle.load(make_bundle(folder / "bundle")))
    for view in ("content", "prompt"):
        (window,) = reader.read(request("rain <|im_end|> now"), {view})[view].windows
        assert WORDS.index("<|im_end|>") not in window


_ROWS = {
    "not JSON": "this is no JSON",
    "not UTF-8": '{"text": "\udcff"}',
    "not an object": "[1]",
    "without a text": "{}",
    "with half a pair": r'{"text": "\ud800"}',
}


def _row(line: str, folder: Path) -> None:
    """The row is named; the others are scored; the exit code is 2."""
    good = json.dumps({"id": "good", "text": "the garden"})
    rows = folder / "rows.jsonl"
    rows.write_bytes(f"{good}\n{line}\n{good}".encode("utf-8", "surrogateescape"))
    code, text = printed("score", make_bundle(folder / "bundle"), "--input", rows)
    assert code == 2
    assert f"{rows}:2: " in text
    assert text.count("good: ok") == 2


def _states(**changes: Any) -> np.ndarray:
    shape = {"states": LAYERS + 1, "tokens": 5, "width": WIDTH} | changes
    return np.random.default_rng(0).normal(size=tuple(shape.values())).astype(np.float32)


def _wrong_states(states: Any, folder: Path) -> None:
    with pytest.raises(InputError, match="found"):
        _guard(folder).score_states(states)


def _states_without_a_number(folder: Path) -> None:
    guard = _guard(folder)
    for value in (np.nan, np.inf):
        states = _states()
        states[:, -1, 3] = value
        verdict = guard.score_states(states)
        assert (verdict.flagged, verdict.status) == (True, "invalid")


ATTACKS = (
    Attack("no text", _no_text),
    Attack("a text longer than the window", partial(_long_text, "head-tail")),
    Attack("a text longer than all windows", partial(_long_text, "sliding")),
    Attack("typed control tokens", _typed_control_tokens),
    *(Attack(f"a row {case}", partial(_row, line)) for case, line in _ROWS.items()),
    Attack("states of too few layers", partial(_wrong_states, _states(states=2))),
    Attack("states of another width", partial(_wrong_states, _states(width=8))),
    Attack("states of float64", partial(_wrong_states, _states().astype(np.float64))),
    Attack("states in another layout", partial(_wrong_states, _states().transpose(0, 2, 1))),
    Attack("states that are not finite", _states_without_a_number),
)
