"""The instruction set that the kernels use."""

from layerguard.runtime._kernels import ffi, lib
from layerguard.runtime.kernels.call import check


def level() -> str:
    """The instruction set in use: ``x86-64``, ``x86-64-v3``, ``x86-64-v4`` or ``portable``.

    Selected at the first call: the level that ``LAYERGUARD_LEVEL`` names, else the highest that
    this processor supports.

    Raises:
        MachineError: ``LAYERGUARD_LEVEL`` names a level that is unknown or that cannot run here.
    """
    name = ffi.new("char const **")
    check(lib.lg_level(name), "level")
    return str(ffi.string(name[0]).decode())


def set_level(name: str | None) -> None:
    """Select the instruction set for this process; None selects as the first call would.

    Raises:
        MachineError: the name is unknown, or this processor cannot run it.
    """
    check(lib.lg_set_level(ffi.NULL if name is None else name.encode()), f"level {name!r}")
