"""Writes the C source of ``layerguard.runtime._kernels``; run by CMake, not imported.

cffi reads the same declarations as the C compiler, ``csrc/layerguard_api.h``, and the functions in
``arrays.h``.
"""

import sys
from pathlib import Path

from cffi import FFI

API = Path(__file__).resolve().parents[2] / "csrc" / "layerguard_api.h"

ARRAYS = """
enum { LG_NOT_PLAIN = 1 };
int lg_pooled_arrays(lg_guard const *guard, uintptr_t layers, uintptr_t readings,
                     uintptr_t evidence, size_t evidence_count);
int lg_extremes_arrays(lg_directions const *model, uintptr_t layers, uintptr_t mask,
                       uintptr_t roles, uintptr_t extremes, uintptr_t workspace);
int lg_windows_arrays(lg_probe const *model, uintptr_t layers, uintptr_t mask, uintptr_t windows);
int lg_pool_arrays(uintptr_t layers, uintptr_t mask, uintptr_t pooled, uintptr_t workspace);
int lg_sums_arrays(uintptr_t layers, uintptr_t sums, size_t counted, uintptr_t mean);
"""


def main(output: Path) -> None:
    """Write the module's C source to ``output``."""
    builder = FFI()
    builder.cdef(API.read_text(encoding="utf-8") + ARRAYS)
    builder.set_source(
        "layerguard.runtime._kernels",
        '#include "layerguard.h"\n#include "arrays.h"\n',
        py_limited_api=True,
    )
    builder.emit_c_code(str(output))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
