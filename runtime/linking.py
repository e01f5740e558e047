"""Compiler and linker flags for C programs that use the library in the wheel."""

from pathlib import Path

import layerguard.runtime
from layerguard.runtime.errors import MachineError

HEADER = Path("include", "layerguard.h")


def folder() -> Path:
    """The folder of the header and the libraries.

    Raises:
        MachineError: they are not installed.
    """
    for root in layerguard.runtime.__path__:
        candidate = Path(root, "c")
        if (candidate / HEADER).is_file():
            return candidate
    raise MachineError(
        f"found no c/{HEADER} beside layerguard.runtime; install the wheel, or run cmake --install"
    )


def compile_flags() -> list[str]:
    """Compiler flags that locate the header."""
    return [f"-I{folder() / 'include'}"]


def link_flags(*, static: bool = False) -> list[str]:
    """Linker flags. With the shared library they set an rpath, so it is found at run time."""
    libraries = folder() / "lib"
    if static:
        return [str(libraries / "liblayerguard.a"), "-lz", "-lm"]
    return [f"-L{libraries}", f"-Wl,-rpath,{libraries}", "-llayerguard"]
