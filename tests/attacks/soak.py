"""Runs a guard for long, and prints whether its memory and descriptors stay as they were.

    python -m tests.attacks.soak [--checks N] [--streams N] [--loads N]

Each kind of work is first done a tenth as often, which warms it up. It holds if the resident memory
then grows by at most a tenth, and the number of open descriptors not at all.
"""

import sys
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from layerguard.runtime import Guard
from tests import tiny_decoder
from tests.attacks.attack import status_kib
from tests.tiny import WORDS

_MOST_GROWTH = 0.1


def main() -> int:
    """Run all three; 1 if something grew."""
    parser = ArgumentParser(prog="python -m tests.attacks.soak", description=__doc__)
    parser.add_argument("--checks", type=int, default=100_000)
    parser.add_argument("--streams", type=int, default=10_000)
    parser.add_argument("--loads", type=int, default=1_000)
    counts = vars(parser.parse_args())
    with TemporaryDirectory(prefix="layerguard-soak-") as folder:
        bundle = tiny_decoder.make_bundle(Path(folder) / "bundle")
        guard = Guard.load(bundle, threads=1)
        work: dict[str, Callable[[int], object]] = {
            "checks": lambda number: guard.check(_text(number)),
            "streams": lambda number: _stream(guard, number),
            "loads": lambda _: Guard.load(bundle, threads=1).check("the garden"),
        }
        held = [_is_flat(name, work[name], count) for name, count in counts.items()]
    return 0 if all(held) else 1


def _text(number: int) -> str:
    """Texts of 1 to 60 words, seldom the same twice."""
    return " ".join(WORDS[5 + (number * k + k) % (len(WORDS) - 5)] for k in range(number % 60 + 1))


def _stream(guard: Guard, number: int) -> None:
    """A prompt and an answer of six pushes."""
    with guard.stream(prompt=_text(number)) as stream:
        for word in WORDS[8:14]:
            stream.push(f" {word}")


def _is_flat(name: str, work: Callable[[int], object], count: int) -> bool:
    """Warm up, work ``count`` times and print what grew; whether it stayed flat."""
    for number in range(count // 10):
        work(number)
    memory, descriptors = status_kib("VmRSS"), _descriptors()
    for number in range(count):
        work(number)
    growth, more = status_kib("VmRSS") / memory - 1, _descriptors() - descriptors
    held = growth <= _MOST_GROWTH and more <= 0
    print(
        f"{count:7} {name:8} memory {memory / 1024:5.0f} MiB {growth:+.1%}, descriptors "
        f"{descriptors} {more:+d}  {'held' if held else 'NOT HELD'}",
        flush=True,
    )
    return held


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


if __name__ == "__main__":
    sys.exit(main())
