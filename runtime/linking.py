"""How a C program links with the library that the wheel ships."""

from pathlib import Path

import layerguard.runtime
from layerguard.runtime.errors import MachineError

HEADER = Path("include", "layerguard.h")


def folder() -> Path:
    """Where header and libraries lie.

    Raises:
        MachineError: they were not installed.
    """
    for root in layerguard.runtime.__path__:
        found = Path(root, "c")
        if (found / HEADER).is_file():
            return found
    raise MachineError(
        f"found no c/{HEADER} beside layerguard.runtime; install the wheel, or run cmake --install"
    )


def compile_flags() -> list[str]:
    """What the compiler needs to find the header."""
    return [f"-I{folder() / 'include'}"]


def link_flags(*, static: bool = False) -> list[str]:
    """What the linker needs; a shared library is found where it lies when the program runs."""
    libraries = folder() / "lib"
    if static:
        return [str(libraries / "liblayerguard.a"), "-lz", "-lm"]
    return [f"-L{libraries}", f"-Wl,-rpath,{libraries}", "-llayerguard"]
