"""What does the C library's guard cost beside its kernels, and how fast does it open an archive?

The same text, last token of float32 states: LCF's kernel called by itself, and ``lg_score`` of a
guard that has that one detector, in a program in C (``c_library.c``); the difference is the guard's
own. So narrow a model that the mathematics takes little.
"""

import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.bench import one_thread  # isort: skip  before anything that starts threads

import numpy as np

from layerguard.runtime._kernels import ffi
from layerguard.runtime.bundle.npz import read_npz, write_npz
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.linking import compile_flags, link_flags
from tests.bench.harness import measure, report
from tests.c_guard import open_guard
from tests.random_detectors import Params, make_params

_NARROW, _LARGE = (28, 8), (48, 5120)
_GOAL_US = 0.15

Row = dict[str, Any]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        rows = _scoring(Path(folder)) + _opening(Path(folder) / "detectors.npz")
    report("c_library", f"Cost of the C library's guard, CPU {one_thread.CPU}", rows)


def _write(path: Path, params: Params) -> None:
    write_npz(path, {f"{d}/{k}": v for d, mine in params.items() for k, v in mine.items()})


def _scoring(folder: Path) -> list[Row]:
    layers, width = _NARROW
    program, archive = folder / "c_library", folder / "detectors.npz"
    _write(archive, {"lcf": make_params(layers, width)["lcf"]})
    source = Path(__file__).with_suffix(".c").with_stem("c_library")
    flags = [*compile_flags(), str(source), "-o", str(program), *link_flags(static=True)]
    subprocess.run(["cc", "-std=c11", "-O2", *flags], check=True)
    printed = subprocess.run([program, archive], check=True, capture_output=True, text=True).stdout
    kernel, guard = map(float, printed.split())
    what = f"{layers} x {width}"
    return [
        {"what": what, "call": "lg_lcf_score", "us": kernel},
        {"what": what, "call": "lg_score", "us": guard},
        {"what": what, "call": "the guard's own", "us": guard - kernel, "goal": _GOAL_US},
    ]


def _opening(path: Path) -> list[Row]:
    layers, width = _LARGE
    _write(path, make_params(layers, width))

    def python() -> None:
        arrays, faults = read_npz(path)
        for name in ("lcf", "siren", "weightwatch"):
            mine = {k.partition("/")[2]: v for k, v in arrays.items() if k.startswith(f"{name}/")}
            faults += REGISTRY[name].faults(mine, layers, width)
        assert not faults, faults

    def numpy() -> None:
        with np.load(path) as archive:
            assert all(archive[name].nbytes for name in archive.files)

    def library() -> None:
        ffi.release(open_guard(path))

    contenders = {"lg_open": library, "numpy.load": numpy, "Python, the same checks": python}
    timed = measure(contenders, rounds=7)
    what = f"open {path.stat().st_size / 1e6:.0f} MB"
    return [
        {"what": what, "call": name, "us": 1e6 * s, "ratio": s / timed["lg_open"]}
        for name, s in timed.items()
    ]


if __name__ == "__main__":
    main()
