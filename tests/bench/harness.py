"""What every benchmark shares: interleaved timing, the machine's card, a table, a JSON file.

Only ratios taken in one run travel between machines. Each round times every contender once, in
turn, so a slow moment of the machine falls on all of them; a figure is the median of its rounds.
"""

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from layerguard.runtime.types import Array

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).resolve().parent / "results"
_COLD_BYTES = 128 << 20
_PACKAGES = ("layerguard", "numpy", "onnxruntime", "torch", "numba", "transformers")


def measure(
    contenders: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 31,
    cold: bool = False,
    inner: int = 1,
) -> dict[str, float]:
    """Median seconds of one call of each contender.

    Args:
        contenders: what to time, by name; each is called once before the clock starts.
        rounds: how often each is timed.
        cold: read 128 MiB through the caches before every timed call, as a forward pass reads its
            weights: so parameters stand where it leaves them. Then ``inner`` is 1.
        inner: calls within one timing, for calls too short for the clock; one more, which is not
            timed, comes first and brings its data back into the caches.
    """
    for call in contenders.values():
        call()
    stream = np.ones(_COLD_BYTES // 8) if cold else None
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            times[name].append(_one(call, 1 if cold else inner, stream))
    return {name: statistics.median(values) for name, values in times.items()}


def _one(call: Callable[[], object], inner: int, stream: Array | None) -> float:
    if stream is not None:
        stream.sum()
        _clock(_nothing, inner)  # the clock's own code back into the caches
    elif inner > 1:
        call()
    return _clock(call, inner)


def _clock(call: Callable[[], object], inner: int) -> float:
    start = time.perf_counter()
    for _ in range(inner):
        call()
    return (time.perf_counter() - start) / inner


def _nothing() -> None:
    pass


def report(
    name: str, question: str, rows: Sequence[Mapping[str, Any]], folder: Path = RESULTS
) -> None:
    """Print the rows as a table and write them with the machine's card to ``folder/NAME.json``."""
    print(f"\n{question}\n{_card_line()}")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns, *[[_cell(row.get(column)) for column in columns] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    for row in cells:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    folder.mkdir(exist_ok=True)
    content = {"question": question, "machine": machine(), "rows": list(rows)}
    (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """Processor, cores, versions and commit: what a figure depends on."""
    cpu = "unknown"
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "commit": _commit(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
    }


def _card_line() -> str:
    card = machine()
    return f"{card['cpu']}, {card['cores']} core(s), commit {card['commit']}"


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True, text=True, cwd=REPOSITORY, check=False,
    )  # fmt: skip
    return done.stdout.strip() or "unknown"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return "" if value is None else str(value)
