"""The exceptions that LayerGuard raises deliberately.

    LayerGuardError
    ├── BundleError        the bundle is missing, altered or inconsistent; lists every fault
    ├── InputError         the caller's text, rows or states are wrong
    ├── CalibrationError   the data are not sufficient for the requested calibration
    ├── ExportError        the model cannot be exported, or the export check failed
    └── MachineError       this machine lacks something: an extra, a provider, a kernel

A message has three parts: what was found, what was expected, what to do.
"""

from collections.abc import Sequence
from typing import ClassVar

from layerguard.runtime.printable import printable

_SHOWN = 100
_LONGEST = 600


class LayerGuardError(Exception):
    """Base class of all LayerGuard errors; ``exit_code`` is the exit code of the command line."""

    exit_code: ClassVar[int] = 2


class InputError(LayerGuardError):
    """The caller's text, rows or states are wrong."""


class CalibrationError(LayerGuardError):
    """The data are not sufficient for the requested calibration."""


class ExportError(LayerGuardError):
    """The model cannot be exported, or the export check failed."""


class MachineError(LayerGuardError):
    """This machine lacks something: an extra, a provider, a kernel."""

    exit_code: ClassVar[int] = 3


class BundleError(LayerGuardError):
    """The bundle is missing, altered or inconsistent, and is not served.

    The message shows the first hundred faults, one per line. Faults quote contents of the bundle,
    so non-printable characters are escaped: a bundle must not send control codes to the terminal.

    Attributes:
        faults: every fault, each a sentence with what was found, what was expected and what to do.
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
        """Support pickling, so that the error can be sent to another process."""
        return type(self), (self.where, self.faults)


def _printable(fault: str) -> str:
    if len(fault) > _LONGEST:
        fault = f"{fault[:_LONGEST]}..."
    return printable(fault)
