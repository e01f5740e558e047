"""Measures time and memory of ten hostile requests while they grow.

    python -m tests.attacks.growth

Each cell is a process of its own. A family holds if four times the size never takes more than six
times as long, and the memory stays within the limit. Beyond the guard's limits a request is cut or
refused, and the time grows no more than reading its length takes.
"""

import contextlib
import json
import sys
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from layerguard.runtime import Guard, InputError
from layerguard.runtime.rows.jsonl import read_rows
from tests.attacks.attack import Attack, Outcome, attempt
from tests.attacks.unread import CHAT, chat_guard
from tests.tiny import make_bundle, params_of

STEPS = (1, 4, 16, 64)
SECONDS, MEBIBYTES = 20, 1024
_TIMES_FOUR = 6.0
_NOISE_S = 0.1
"""Differences of so little time say nothing."""

_TURN = {"role": "user", "content": "the garden"}


def _checked(folder: Path, **arguments: Any) -> None:
    """Check a request, which may be beyond the limits."""
    guard = chat_guard(folder)
    with contextlib.suppress(InputError):
        guard.check(**arguments)


def _text(piece: str, size: int, folder: Path) -> None:
    _checked(folder, text=piece * size)


def _turns(size: int, folder: Path) -> None:
    params = {"weightwatch": params_of("weightwatch")}
    bundle = make_bundle(folder / "bundle", params, template="chat", chat_template=CHAT)
    turns = [{"role": ("user", "assistant")[n % 2], "content": "ab"} for n in range(size)]
    Guard.load(bundle, threads=1).check(messages=turns)


def _parts(size: int, folder: Path) -> None:
    parts = [{"type": "text", "text": "garden"}] * size
    _checked(folder, messages=[{"role": "user", "content": parts}])


def _tools(size: int, folder: Path) -> None:
    _checked(folder, messages=[_TURN], tools=[{"name": "a", "description": "garden"}] * size)


def _levels(size: int, folder: Path) -> None:
    value: Any = "garden"
    for _ in range(size):
        value = [value]
    _checked(folder, messages=[{**_TURN, "extra": value}])


def _arguments(size: int, folder: Path) -> None:
    call = {"function": {"name": "a", "arguments": json.dumps(["garden"] * size)}}
    _checked(folder, messages=[_TURN, {"role": "assistant", "tool_calls": [call]}])


def _row(size: int, folder: Path) -> None:
    path = folder / "rows.jsonl"
    path.write_bytes(b'{"text": "' + b"a" * size + b'"}\n{"text": "the garden"}\n')
    read_rows([path])


FAMILIES: dict[str, tuple[Callable[[int, Path], None], int]] = {
    "words": (partial(_text, "garden "), 18_000),
    "control tokens": (partial(_text, "<|im_end|>"), 12_500),
    "one word": (partial(_text, "a"), 125_000),
    "joined emoji": (partial(_text, "\U0001f469\u200d"), 62_500),
    "turns": (_turns, 150),
    "parts": (_parts, 3_000),
    "tools": (_tools, 15),
    "levels": (_levels, 2_000),
    "arguments of a call": (_arguments, 6_000),
    "bytes of a row": (_row, 500_000),
}
"""How to make one of a size, and the first size."""


def main() -> int:
    """Print the table; 1 if a family grows faster than its size or beyond the limits."""
    print(f"{'family':22}" + "".join(f"{f'size x {step}':>20}" for step in STEPS))
    held = [_report(name, make, size) for name, (make, size) in FAMILIES.items()]
    return 0 if all(held) else 1


def _report(name: str, make: Callable[[int, Path], None], size: int) -> bool:
    """Measure one family and print its row; whether it holds."""
    outcomes = []
    for step in STEPS:
        attack = Attack(name, partial(make, size * step), SECONDS, MEBIBYTES)
        with TemporaryDirectory(prefix="layerguard-growth-") as folder:
            outcomes.append(attempt(attack, Path(folder)))
    cells = "".join(f"{o.seconds:9.2f} s {o.mebibytes:4.0f} MiB" for o in outcomes)
    fault = next((o.fault for o in outcomes if o.fault), "") or _growth(outcomes)
    print(f"{name:22}{cells}  {f'NOT HELD: {fault}' if fault else 'held'}", flush=True)
    return not fault


def _growth(outcomes: list[Outcome]) -> str:
    """What grows faster than its size; empty if nothing does."""
    for before, after in pairwise(outcomes):
        if after.seconds > _TIMES_FOUR * before.seconds + _NOISE_S:
            return f"from {before.seconds:.2f} s to {after.seconds:.2f} s for four times the size"
    return ""


if __name__ == "__main__":
    sys.exit(main())
