"""Imports of packages that an extra installs: without them an error says what to install."""

from collections.abc import Iterator
from contextlib import contextmanager

from layerguard.runtime.errors import MachineError


@contextmanager
def needing(extra: str, what: str = "it") -> Iterator[None]:
    """Imports within it need an extra.

    Args:
        extra: name of the extra; onnxruntime comes with ``cpu`` in any case.
        what: what needs it, as the error says.

    Raises:
        MachineError: a package is not installed.
    """
    try:
        yield
    except ImportError as error:
        missing = (error.name or str(error)).partition(".")[0]
        if missing == "layerguard":
            raise
        installs = "cpu" if missing == "onnxruntime" else extra
        raise MachineError(
            f"{what} needs {missing}, which is not installed: pip install 'layerguard[{installs}]'"
        ) from error
