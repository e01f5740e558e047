"""A whole guard in C against a whole guard in Python: the same graph, weights and detector.

``csrc/examples/whole_guard.c`` from token ids and ``Guard.check`` from text, each in a process that
answers one line after another; MiniLM in float32 with LCF of random parameters. Then the time from
starting the process to the first verdict, and the process's high-water mark of memory.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from layerguard.runtime import Guard
from layerguard.runtime.linking import compile_flags, link_flags
from tests import onnxruntime_c
from tests.bench.harness import REPOSITORY, measure, report
from tests.bench.minilm import CACHE, exported
from tests.random_detectors import freeze, make_params

_LAYERS, _WIDTH = 6, 384
_WORDS = (8, 32, 128)
_STARTS = 5
_SOURCE = REPOSITORY / "csrc" / "examples" / "whole_guard.c"
_PYTHON = """
import sys
from layerguard.runtime import Guard
guard = Guard.load(sys.argv[1])
for line in sys.stdin:
    print(guard.check(line).readings["lcf"].score, flush=True)
"""
Ask = Callable[[str], str]


def main() -> None:
    bundle = freeze(
        exported("--mode", "states"),
        CACHE / "whole-guard",
        {"lcf": make_params(_LAYERS, _WIDTH)["lcf"]},
    )
    tokenizer = Guard.load(bundle).backbone.reader.tokenizer
    texts = [" ".join(["garden"] * words) for words in _WORDS]
    lines = [" ".join(map(str, tokenizer.encode(text).ids)) for text in texts]
    with tempfile.TemporaryDirectory() as folder:
        programs = {
            "C": ([str(_built(Path(folder))), str(bundle)], lines),
            "Python": ([sys.executable, "-c", _PYTHON, str(bundle)], texts),
        }
        rows = [*_latencies(programs), *_starts(programs)]
    report("whole_guard", "A whole guard, MiniLM and LCF: C from ids, Python from text", rows)


def _built(folder: Path) -> Path:
    include, library = onnxruntime_c.headers(), onnxruntime_c.library(folder)
    program = folder / "whole_guard"
    command = ["cc", "-std=c11", "-O2", f"-I{include}", *compile_flags(), str(_SOURCE)]
    subprocess.run([*command, "-o", str(program), *link_flags(), *library], check=True)
    return program


def _latencies(programs: dict[str, tuple[list[str], list[str]]]) -> Iterator[dict[str, Any]]:
    (c_command, ids), (python_command, texts) = programs.values()
    with _served(c_command) as c, _served(python_command) as python:
        for words, line, text in zip(_WORDS, ids, texts, strict=True):
            ours, theirs = float(c(line).split()[1]), float(python(text))
            if abs(ours - theirs) > 1e-5 * (1 + abs(theirs)):
                raise SystemExit(f"C scores {ours}, Python {theirs}: not the same guard")
            calls = {"C": lambda line=line: c(line), "Python": lambda text=text: python(text)}
            seconds = measure(calls, rounds=31)
            yield {
                "what": f"{words} words, ms",
                **{name: 1e3 * found for name, found in seconds.items()},
                "ratio": seconds["Python"] / seconds["C"],
            }


def _starts(programs: dict[str, tuple[list[str], list[str]]]) -> Iterator[dict[str, Any]]:
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
    for _ in range(_STARTS):
        for name, (command, lines) in programs.items():
            found[name].append(_started(command, lines[0]))
    for index, what in enumerate(("start to first verdict, s", "peak memory, MB")):
        middle = {name: statistics.median(r[index] for r in runs) for name, runs in found.items()}
        yield {"what": what, **middle, "ratio": middle["Python"] / middle["C"]}


def _started(command: Sequence[str], line: str) -> tuple[float, float]:
    """Seconds to the first answer, and megabytes of memory then."""
    start = time.perf_counter()
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        _ask(process, line)
        elapsed = time.perf_counter() - start
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        process.communicate()
    peak = next(row.split()[1] for row in status.splitlines() if row.startswith("VmHWM"))
    return elapsed, int(peak) / 1024


@contextmanager
def _served(command: Sequence[str]) -> Iterator[Ask]:
    """A process that answers a line with a line."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield lambda line: _ask(process, line)
        process.communicate()


def _ask(process: "subprocess.Popen[str]", line: str) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    return process.stdout.readline()


if __name__ == "__main__":
    main()
