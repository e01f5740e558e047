"""Reads JSON files that are saved together with weights."""

import json
from pathlib import Path

from layerguard.runtime.errors import InputError
from layerguard.runtime.regular_files import read_regular

_MAX_BYTES = 64 << 20
"""Far above the index of the largest published checkpoint, a few MB."""


def read_json(path: Path) -> dict[str, object]:
    """The JSON object in a file that is saved together with weights.

    Raises:
        InputError: the file is missing, not a regular file, too large, or not a JSON object.
    """
    try:
        value = json.loads(read_regular(path, _MAX_BYTES).decode())
    except (OSError, ValueError) as error:
        fault = f"{path} is not JSON ({error})"
        if isinstance(error, OSError):
            fault = f"{path}: {error.strerror}"
        raise InputError(f"{fault}; expected the file that is saved with the weights") from error
    except RecursionError as error:
        raise InputError(f"{path}: nested too deeply; expected a flat JSON object") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: found {type(value).__name__}; expected a JSON object")
    return value
