"""Loads a guard in a process of its own first, within a deadline.

A graph, a tokenizer and a chat template are programs, and a hostile one may not end. A process can
be ended from outside; a thread within onnxruntime cannot.
"""

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from layerguard.runtime.errors import BundleError, InputError

_LOAD = """
import json, sys
from layerguard.runtime import Guard
path, arguments = json.loads(sys.argv[1])
Guard.load(path, **arguments)
"""


def load_in_time(path: Path, arguments: Mapping[str, Any], timeout: float) -> None:
    """Check that ``Guard.load(path, **arguments)`` ends, well or with an error, in another process.

    Args:
        path: the bundle's folder.
        arguments: keyword arguments of ``Guard.load``, as JSON types.
        timeout: seconds until the process is ended, more than 0; its start takes part of them.

    Raises:
        BundleError: loading did not end in time, or the process crashed.
        InputError: ``timeout`` is not a positive number.
    """
    if not (isinstance(timeout, int | float) and 0 < timeout < math.inf):
        raise InputError(f"timeout: found {timeout!r}; expected seconds, more than 0")
    call = json.dumps([str(path.absolute()), arguments])
    try:
        code = subprocess.run(  # noqa: S603  this program with its own arguments
            [sys.executable, "-P", "-c", _LOAD, call],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=timeout,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired as error:
        fault = (
            f"it was not loaded within {timeout:g} s: a graph, tokenizer or template may not end. "
            "Allow more time if the machine is slow; do not load it without a limit unless you "
            "trust it"
        )
        raise BundleError(path, [fault]) from error
    if code < 0:
        fault = f"loading it ended a process by signal {-code}; do not load it unless you trust it"
        raise BundleError(path, [fault])
