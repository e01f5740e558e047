"""Measures how long small checks take while another thread checks a hostile text.

    python -m tests.attacks.beside [SECONDS [SWITCH_S]]

Prints the 99th percentiles of a quiet guard and of one beside each hostile text, by turns, with
the server's switch interval of threads, or another. Exits 1 if one is more than three times the
quiet one.
Takes a machine with two free processors.
"""

import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from layerguard.runtime import Guard
from layerguard.runtime.server.run import SWITCH_S
from tests.attacks.unread import chat_guard

MOST_TIMES_QUIET = 3.0
_PAUSE_S = 0.002
"""Between small checks, as between requests of a service."""

_HOSTILE = {
    "words": "garden " * 300_000,
    "control tokens": "<|im_end|>" * 200_000,
    "one word": "a" * 2_000_000,
}


def main(seconds: float = 20.0, switch_s: float = SWITCH_S) -> int:
    """Measure and print; 1 if a small check waits too long."""
    sys.setswitchinterval(switch_s)
    with TemporaryDirectory(prefix="layerguard-beside-") as folder:
        guard = chat_guard(Path(folder))
    guard.check("the garden")
    held = True
    for name, text in _HOSTILE.items():
        quiet = _p99_ms(guard, seconds)
        beside = _beside(guard, text, seconds)
        held &= beside <= MOST_TIMES_QUIET * quiet
        print(
            f"{name:16} p99 quiet {quiet:7.2f} ms, beside {beside:7.2f} ms, "
            f"{beside / quiet:5.2f} times",
            flush=True,
        )
    return 0 if held else 1


def _beside(guard: Guard, text: str, seconds: float) -> float:
    """The 99th percentile while another thread checks ``text`` again and again."""
    done = threading.Event()

    def attack() -> None:
        while not done.is_set():
            guard.check(text, counted=False)

    thread = threading.Thread(target=attack)
    thread.start()
    try:
        return _p99_ms(guard, seconds)
    finally:
        done.set()
        thread.join()


def _p99_ms(guard: Guard, seconds: float) -> float:
    """The 99th percentile of the time of a small check, in milliseconds."""
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        guard.check("the garden", counted=False)
        times.append(time.perf_counter() - start)
        time.sleep(_PAUSE_S)
    return float(np.quantile(times, 0.99)) * 1e3


if __name__ == "__main__":
    sys.exit(main(*map(float, sys.argv[1:])))
