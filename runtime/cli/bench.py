"""Time a calibrated bundle on this machine: stages of a check by text length, and throughput.

The times are medians of warm calls. Compare ratios within one run: absolute times differ between
machines.
"""

import json
import statistics
import time
from argparse import ArgumentParser, Namespace
from concurrent.futures import ThreadPoolExecutor

from layerguard.runtime.cli import options
from layerguard.runtime.cli.streams import show
from layerguard.runtime.cli.table import render
from layerguard.runtime.errors import InputError
from layerguard.runtime.guard import Guard
from layerguard.runtime.types import Verdict

_WORDS = ("the", "garden", "was", "quiet", "before", "rain", "came", "over", "low", "hills")
_STAGES = ("tokenize", "graph", "score", "total")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    options.add_bundle(parser)
    parser.add_argument(
        "--words", type=int, nargs="+", default=[8, 64, 256], metavar="N", help="text lengths"
    )
    parser.add_argument("--repeats", type=int, default=50, metavar="N", help="calls per length")
    options.add_json(parser)
    options.add_session(parser)


def run(arguments: Namespace) -> int:
    """Print one row per text length, then the throughput of one and two threads."""
    if arguments.repeats < 1 or min(arguments.words) < 0:
        raise InputError(
            f"found --repeats {arguments.repeats} and --words {min(arguments.words)}; expected at "
            "least 1 repeat and 0 words"
        )
    guard = Guard.load(
        arguments.bundle,
        device=arguments.device,
        threads=arguments.threads,
        timeout=arguments.timeout,
    )
    rows = [_latency(guard, words, arguments.repeats) for words in arguments.words]
    words = arguments.words[0]
    rates = {threads: _rate(guard, words, threads, arguments.repeats) for threads in (1, 2)}
    if arguments.json:
        for row in rows:
            print(json.dumps(row))
        print(json.dumps({"checks_per_second": rates}))
        return 0
    header = ["words", "tokens", *(f"{stage} ms" for stage in _STAGES), "p95 ms"]
    table = render(header, [[f"{value:.4g}" for value in row.values()] for row in rows])
    listed = ", ".join(f"{threads} thread(s) {rate:.0f}" for threads, rate in rates.items())
    show(*table.split("\n"), "", f"checks per second, {words} words: {listed}")
    return 0


def _text(words: int) -> str:
    return " ".join(_WORDS[i % len(_WORDS)] for i in range(words))


def _latency(guard: Guard, words: int, repeats: int) -> dict[str, float]:
    text = _text(words)
    guard.check(text)
    verdicts: list[Verdict] = [guard.check(text) for _ in range(repeats)]
    medians = {
        stage: statistics.median(verdict.timings_ms[stage] for verdict in verdicts)
        for stage in _STAGES
    }
    totals = sorted(verdict.timings_ms["total"] for verdict in verdicts)
    p95 = totals[int(0.95 * (repeats - 1))]
    return {"words": words, "tokens": verdicts[0].tokens, **medians, "p95": p95}


def _rate(guard: Guard, words: int, threads: int, repeats: int) -> float:
    """Checks per second with this number of threads."""
    text = _text(words)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(guard.check, [text] * threads))
        start = time.perf_counter()
        list(pool.map(guard.check, [text] * (repeats * threads)))
        return repeats * threads / (time.perf_counter() - start)
