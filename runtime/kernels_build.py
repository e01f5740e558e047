"""Writes the C source of ``layerguard.runtime._kernels``; CMake runs it, nothing imports it.

cffi reads the same declarations as the C compiler, ``csrc/layerguard_api.h``, and the one function
of the Python side, ``kernels_describe.h``.
"""

import sys
from pathlib import Path

from cffi import FFI

RUNTIME = Path(__file__).resolve().parent
API = RUNTIME.parent / "csrc" / "layerguard_api.h"

DESCRIBE = """
int lg_describe(uintptr_t arrays, lg_states *states, void const **layers);
"""


def main(output: Path) -> None:
    """Write the module's C source to ``output``."""
    builder = FFI()
    builder.cdef(API.read_text(encoding="utf-8") + DESCRIBE)
    builder.set_source(
        "layerguard.runtime._kernels",
        '#include "layerguard.h"\n#include "kernels_describe.h"\n',
        py_limited_api=True,
    )
    builder.emit_c_code(str(output))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
