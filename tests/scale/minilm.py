"""Jobs on Ray Data against one process, on all-MiniLM-L6-v2; ``on_ray`` runs this.

    python -m tests.scale.minilm BUNDLE [--rows N]

BUNDLE has no detectors. It is calibrated on the project's own prompts, measured on rows of
``../shared`` where that folder is there, and scores them. Exit code 1: a difference above 1e-6.
"""

import argparse
import itertools
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from layerguard.calibration import calibrate as calibrate_here
from layerguard.calibration import evaluate as evaluate_here
from layerguard.runtime import Bundle, Guard
from layerguard.runtime.bundle.npz import read_npz
from layerguard.runtime.rows.check_rows import check_rows
from layerguard.runtime.rows.jsonl import read_rows
from tests.bench.minilm import PROMPTS
from tests.scale.cluster import ROOT, start

_MOST = 1e-6
_SHARED = ROOT.parent / "shared" / "data" / "siren_toxicchat_test.jsonl"


def main(bundle: Path, most_rows: int) -> int:
    """Print a line for each job; 1 if one of them differs."""
    start()
    import ray  # noqa: PLC0415  it reads its variables at once

    from layerguard.scale.ray import Workers, calibrate, evaluate, score  # noqa: PLC0415

    two = Workers(count=2)
    with TemporaryDirectory() as folder:
        home = Path(folder)
        clean, harmful = (_some(PROMPTS / f"{name}.jsonl", home, most_rows)
                          for name in ("clean", "harmful"))  # fmt: skip
        tests = _some(_SHARED if _SHARED.is_file() else PROMPTS / "fresh.jsonl", home, most_rows)
        here, there = (Path(shutil.copytree(bundle, home / name)) for name in ("one", "ray"))
        rows = {"clean": clean, "labelled": [clean, harmful], "target_fpr": 0.05}
        _, alone_s = _timed(lambda: calibrate_here(here, threads=1, **rows))
        _, apart_s = _timed(lambda: calibrate(there, workers=two, **rows))
        same = Bundle.load(here).id == Bundle.load(there).id
        found = [_line("calibrate", _count(clean), _of_bundles(here, there), alone_s, apart_s)]

        alone, alone_s = _timed(lambda: evaluate_here(here, tests, threads=1))
        apart, apart_s = _timed(lambda: evaluate(here, tests, workers=two))
        difference = _largest(
            (row.readings[name].score, reading.score)
            for row, other in zip(alone.rows, apart.rows, strict=True)
            for name, reading in other.readings.items()
        )
        if alone.files != apart.files:
            difference = max(difference, _of_figures(alone, apart))
        found.append(_line("evaluate", len(alone.rows), difference, alone_s, apart_s))

        verdicts, alone_s = _timed(lambda: _checked(here, tests))
        _, apart_s = _timed(lambda: score(here, tests, home / "out.jsonl", workers=two))
        lines = (home / "out.jsonl").read_text(encoding="utf-8").splitlines()
        difference = _of_verdicts(verdicts, [json.loads(line) for line in lines])
        found.append(_line("score", len(lines), difference, alone_s, apart_s))
    ray.shutdown()
    print(f"{'job':<10} {'rows':>6} {'largest difference':>19} {'seconds, one process':>21} "
          f"{'two workers':>12}")  # fmt: skip
    print("\n".join(line for line, _ in found))
    print("calibrate gives the same bundle" if same else "calibrate gives another bundle")
    return int(any(not sound for _, sound in found))


def _some(path: Path, folder: Path, most: int) -> Path:
    """The first rows of a file."""
    target = folder / path.name
    with path.open(encoding="utf-8") as file:
        target.write_text("".join(itertools.islice(file, most)), encoding="utf-8")
    return target


def _count(path: Path) -> int:
    return len(read_rows([path]).good)


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    begin = time.perf_counter()
    return work(), time.perf_counter() - begin


def _line(job: str, rows: int, difference: float, alone: float, apart: float) -> tuple[str, bool]:
    line = f"{job:<10} {rows:>6} {difference:>19.1e} {alone:>21.1f} {apart:>12.1f}"
    return line, difference <= _MOST


def _largest(pairs: Iterable[tuple[float, float]]) -> float:
    return max((abs(one - other) for one, other in pairs), default=0.0)


def _of_bundles(one: Path, other: Path) -> float:
    """The largest difference of any number that calibration freezes."""
    most = 0.0
    for name in ("detectors.npz", "decision.npz"):
        ours, theirs = (read_npz(folder / name)[0] for folder in (one, other))
        if ours.keys() != theirs.keys():
            return np.inf
        for key, array in ours.items():
            if array.shape != theirs[key].shape:
                return np.inf
            apart = np.abs(array.astype(np.float64) - theirs[key].astype(np.float64))
            most = max(most, float(apart.max(initial=0)))
    return most


def _of_figures(one: Any, other: Any) -> float:
    """The largest difference of any metric."""
    figures = [
        (ours, theirs)
        for file, same in zip(one.files, other.files, strict=True)
        for mine, yours in zip(file.figures, same.figures, strict=True)
        for ours, theirs in zip(
            (getattr(mine, name) for name in mine.__slots__),
            (getattr(yours, name) for name in yours.__slots__),
            strict=True,
        )
        if isinstance(ours, float)
    ]
    return _largest(figures)


def _checked(bundle: Path, rows: Path) -> list[Any]:
    guard = Guard.load(bundle, threads=1)
    return [verdict for _, verdict in check_rows(guard, read_rows([rows]).good, [], "scoring")]


def _of_verdicts(verdicts: list[Any], lines: list[Any]) -> float:
    """The largest difference of any score; infinite where a decision differs."""
    if any(one.flagged != line["flagged"] for one, line in zip(verdicts, lines, strict=True)):
        return np.inf
    return _largest(
        (reading.score, line["readings"][name]["score"])
        for one, line in zip(verdicts, lines, strict=True)
        for name, reading in one.readings.items()
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rows", type=int, default=300, help="of each file (default: 300)")
    arguments = parser.parse_args()
    sys.exit(main(arguments.bundle, arguments.rows))
