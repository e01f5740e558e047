"""JSON files that lie beside weights."""

import json
from pathlib import Path

from layerguard.runtime.errors import InputError


def read_json(path: Path) -> dict[str, object]:
    """The JSON object in a file that lies beside weights.

    Raises:
        InputError: there is no such file, or it holds no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        found = f"{path} is not JSON ({error})"
        if isinstance(error, OSError):
            found = f"{path}: {error.strerror}"
        raise InputError(f"{found}; expected the file that is saved with the weights") from error
    except RecursionError as error:
        raise InputError(f"{path}: nested too deeply; expected a flat JSON object") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: found {type(value).__name__}; expected a JSON object")
    return value
