"""How much memory does calibration take, with states read in parts and with all of them in memory?

    python -m tests.bench.bench_calibration_memory

20,000 rows of 33 states of width 4096 (10.8 GB), random, drawn a block at a time and never held.
LCF is fitted in full. SIREN reads one layer at a time, so three states are recorded; one probe on
all rows is fitted, with one of the five strengths, and a committee learns one epoch from as many
features as 32 layers give: a full fit takes 960 such probes, one after the other. "In memory" is
the algorithm of ``tests/reference/lcf_fit.py`` on an array of fewer rows; what the array and the
temporary arrays of one layer take at all rows is extrapolated in its own column. Each figure is of
a process of its own.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np

from layerguard.calibration import lcf
from layerguard.calibration.lcf import estimation
from layerguard.calibration.rows.folds import random_folds
from layerguard.calibration.rows.stratified import stratified_folds
from layerguard.calibration.siren import probes
from layerguard.calibration.siren.network import Committee
from layerguard.calibration.states.blockwise import States
from layerguard.calibration.states.recording import Recording
from layerguard.calibration.threads import one_thread
from layerguard.runtime.types import Array
from tests.bench.harness import report
from tests.reference import lcf_fit

ROWS, STATES, WIDTH = 20_000, 33, 4096
FEW = 2_000
BLOCK = 100
_GB = 1e9
_INTERVAL_S = 0.02


def main() -> None:
    size = ROWS * STATES * WIDTH * 4
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < 1.1 * size:
        raise SystemExit(f"{tempfile.gettempdir()} has {free / _GB:.1f} GB free; expected 12")
    rows = []
    for name in CASES:
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench.bench_calibration_memory", name],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        rows.append({"fit": name, **json.loads(done.stdout.splitlines()[-1])})
        print(rows[-1], flush=True)
    in_memory = rows[-1]
    in_memory["extrapolated GB"] = in_memory["peak GB"] * ROWS / FEW  # all but the libraries' own
    report("calibration_memory", f"Memory of calibration, {STATES} states of width {WIDTH}", rows)


def blocks(rows: int, states: int = STATES) -> Iterator[Array]:
    """Random walks over layers, each row with a scale of its own, float32 [BLOCK, states, WIDTH].

    Every third row is moved along a few dimensions.
    """
    for start in range(0, rows, BLOCK):
        rng = np.random.default_rng(start)
        walk = rng.standard_normal((BLOCK, states, WIDTH), np.float32)
        walk *= np.exp(0.1 * rng.standard_normal((BLOCK, 1, 1))).astype(np.float32)
        np.cumsum(walk, axis=1, out=walk)
        walk[np.arange(start, start + BLOCK) % 3 == 0, :, :8] += 1
        yield walk


def recorded(states: int) -> Recording:
    """All rows on disk."""
    recording = Recording(ROWS)
    for block in blocks(ROWS, states):
        recording.append(block)
    assert recording.on_disk
    return recording


def streamed_lcf(states: States) -> None:
    params = lcf.fit(states, "cross-fit", target_fpr=0.01)
    assert params["clean_scores"].shape == (ROWS,)


def streamed_siren(states: States) -> None:
    labels = (np.arange(ROWS) % 3 == 0).astype(np.int64)
    split = stratified_folds(labels, np.arange(ROWS), 5, 0)[0]
    probes.STRENGTHS = probes.STRENGTHS[:1]
    with one_thread():
        weights, f1, strength = probes._probe(states.layer(1), labels, split, 0)
        neurons = probes.select_neurons(weights, 0.9)
        layers = (1, 2) * (STATES // 2)
        found = probes.Selection(
            layers,
            (neurons,) * len(layers),
            np.ones(len(layers), np.float32),
            (f1,) * len(layers),
            (strength,) * len(layers),
        )
        Committee(found.features(states), labels, 0.01, 0).learn(1)


def in_memory_lcf(states: Array) -> None:
    folds = random_folds(np.arange(len(states)), lcf.FOLDS, 0)
    lcf_fit.parameters(states, estimation._floored)
    lcf_fit.held_out(states, folds, estimation._floored)


CASES: dict[str, tuple[Callable[[], States | Array], Callable[..., None], int]] = {
    "LCF, in parts": (partial(recorded, STATES), streamed_lcf, ROWS),
    "SIREN, in parts, one probe": (partial(recorded, 3), streamed_siren, ROWS),
    "LCF, in memory": (lambda: np.concatenate(list(blocks(FEW))), in_memory_lcf, FEW),
}


def measure(name: str) -> None:
    """One case in this process; prints its figures as JSON."""
    make, fit, rows = CASES[name]
    states = make()
    made, peak = time.process_time(), _Peak()
    with peak:
        fit(states)
    print(
        json.dumps(
            {
                "rows": rows,
                "fit CPU s": time.process_time() - made,
                "make CPU s": made,
                "peak GB": _status("VmHWM"),
                "peak anonymous GB": peak.anonymous,
            }
        )
    )


class _Peak(threading.Thread):
    """The largest anonymous memory of the process while it is entered."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.anonymous = 0.0
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(_INTERVAL_S):
            self.anonymous = max(self.anonymous, _status("RssAnon"))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()


def _status(field: str) -> float:
    """Gigabytes of this process's memory."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / _GB
    raise AssertionError(field)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(sys.argv[1])
    else:
        main()
