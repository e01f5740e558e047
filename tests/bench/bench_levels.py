"""What does each level cost, and what does it cost that all of them give the same bits?

Levels: the same LCF call at every level that runs here, for every dtype of states; batch 1, warm.
Determinism: the core compiled twice by this machine's compiler for the same level, with the flags
of the build and with -ffast-math, which adds in any order and fuses multiply and add.
"""

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench import one_thread  # isort: skip  before anything that starts threads

import numpy as np

from layerguard.runtime import kernels
from layerguard.runtime._kernels import ffi
from tests.bench.handles import lcf_handle
from tests.bench.harness import REPOSITORY, measure, report
from tests.kernel_cases import Array, lcf_model, levels, states

_SHAPES = ((28, 1024), (32, 4096))
_GOAL = 1.05
_COMMON = ("-O3", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-mprefer-vector-width=512")
_DETERMINISTIC, _FAST = ("-ffp-contract=off",), ("-ffast-math",)

Row = dict[str, Any]


def main() -> None:
    rows = [row for depth, width in _SHAPES for row in _levels(depth, width)]
    rows += [row for depth, width in _SHAPES for row in _determinism(depth, width)]
    report("levels", f"Cost of levels and of determinism, CPU {one_thread.CPU}", rows)


def _of_dtype(h: Array, dtype: str) -> Array:
    if dtype == "bfloat16":
        return (h.view(np.uint32) >> 16).astype(np.uint16)
    return h.astype(dtype)


def _levels(depth: int, width: int) -> Iterator[Row]:
    kernel = lcf_model(width, depth).kernel()
    for dtype in ("float32", "float16", "bfloat16"):
        handle = lcf_handle(kernel, _of_dtype(states(width, 1, depth), dtype))
        timed = {}
        for name in levels():  # a level is the process's, so each is measured on its own
            kernels.set_level(name)
            timed |= measure({name: handle}, rounds=401, inner=16)
        for name, seconds in timed.items():
            yield {
                "what": f"{depth} x {width}, {dtype}",
                "contender": name,
                "us": seconds * 1e6,
                "ratio": seconds / min(timed.values()),
            }
    kernels.set_level(None)


def _determinism(depth: int, width: int) -> Iterator[Row]:
    compiler = shutil.which("cc")
    if compiler is None or "x86-64-v3" not in levels():
        print("the cost of determinism is not measured: it needs a C compiler and x86-64-v3")
        return
    handle = lcf_handle(lcf_model(width, depth).kernel(), states(width, 1, depth))
    call = int(ffi.cast("uintptr_t", handle.args[0]))
    with tempfile.TemporaryDirectory() as folder:
        variants = {
            "-ffast-math": _compiled(compiler, Path(folder) / "fast.so", _FAST),
            "fixed order": _compiled(compiler, Path(folder) / "fixed.so", _DETERMINISTIC),
        }
        timed = measure({n: partial(f, call) for n, f in variants.items()}, rounds=401, inner=16)
    for name, seconds in timed.items():
        yield {
            "what": f"{depth} x {width}, determinism, {levels()[-1]}",
            "contender": name,
            "us": seconds * 1e6,
            "ratio": seconds / timed["-ffast-math"],
            "goal": _GOAL if name == "fixed order" else None,
        }


def _compiled(compiler: str, library: Path, flags: tuple[str, ...]) -> Callable[[int], int]:
    """``lg_lcf_score`` of the core, compiled with ``flags``.

    Linked without them: linking with -ffast-math would turn on flush-to-zero in this process.
    """
    sources, objects = REPOSITORY / "csrc" / "kernels", []

    def build(name: str, *more: str) -> None:
        target = library.with_name(f"{library.stem}-{len(objects)}.o")
        command = [
            compiler,
            *_COMMON,
            f"-I{sources.parent}",
            *more,
            "-c",
            str(sources / name),
            "-o",
            str(target),
        ]
        subprocess.run(command, check=True)
        objects.append(str(target))

    for level in ("x86-64", "x86-64-v3", "x86-64-v4"):
        for family in ("lcf.c", "pooling.c", "siren.c", "weightwatch.c"):
            build(family, *flags, f"-march={level}", f"-DLG_LEVEL={level.replace('-', '_')}")
    entries = sorted(path.name for path in sources.glob("entry_*.c"))
    for shared in ("checks.c", *entries, "level.c", "softmax.c", "status.c"):
        build(shared, *_DETERMINISTIC)
    subprocess.run([compiler, "-shared", *objects, "-lm", "-o", str(library)], check=True)
    function = ctypes.CDLL(str(library)).lg_lcf_score
    function.argtypes = [ctypes.c_void_p]
    found: Callable[[int], int] = function
    return found


if __name__ == "__main__":
    main()
