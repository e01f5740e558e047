"""Everything LayerGuard raises on purpose.

    LayerGuardError
    ├── BundleError        the bundle is missing, altered or inconsistent; lists every fault
    ├── InputError         the caller's text, rows or states are wrong
    ├── CalibrationError   the data cannot support what was asked of the calibration
    ├── ExportError        the model cannot be exported, or the export failed its own proof
    └── MachineError       this machine lacks something: an extra, a provider, a kernel

A message has three parts: what was found, what was expected, what to do.
"""

from collections.abc import Sequence
from typing import ClassVar

_SHOWN = 100
_LONGEST = 600


class LayerGuardError(Exception):
    """Base of all errors raised on purpose; ``exit_code`` is what the command line returns."""

    exit_code: ClassVar[int] = 2


class InputError(LayerGuardError):
    """The caller's text, rows or states are wrong."""


class CalibrationError(LayerGuardError):
    """The data cannot support what was asked of the calibration."""


class ExportError(LayerGuardError):
    """The model cannot be exported, or the export failed its own proof."""


class MachineError(LayerGuardError):
    """This machine lacks something: an extra, a provider, a kernel."""

    exit_code: ClassVar[int] = 3


class BundleError(LayerGuardError):
    """The bundle is missing, altered or inconsistent; nothing of it is served.

    The message shows the first hundred faults, one a line. They quote what the bundle holds, so
    they are made printable: a bundle must not steer the terminal that refuses it.

    Attributes:
        faults: every fault found, each a sentence with what was found, expected and what to do.
    """

    def __init__(self, where: object, faults: Sequence[str]) -> None:
        self.where = str(where)
        self.faults = tuple(faults)
        lines = [_printable(fault) for fault in self.faults[:_SHOWN]]
        if len(self.faults) > _SHOWN:
            lines.append(f"and {len(self.faults) - _SHOWN} more")
        listed = "".join(f"\n  - {line}" for line in lines)
        super().__init__(f"bundle {self.where!r} is not served:{listed}")

    def __reduce__(self) -> tuple[type["BundleError"], tuple[str, tuple[str, ...]]]:
        """Made again from its parts, so that it crosses process borders."""
        return type(self), (self.where, self.faults)


def _printable(fault: str) -> str:
    if len(fault) > _LONGEST:
        fault = f"{fault[:_LONGEST]}..."
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in fault)
