"""A command in a process of its own, and what it took."""

import os
import subprocess
import time
from collections.abc import Sequence

from tests.bench.harness import REPOSITORY


def run_child(stage: str, command: Sequence[str]) -> tuple[dict[str, object], str]:
    """Run a command; a row of a report, and what it printed on either stream.

    Its peak memory is its own: ``RUSAGE_CHILDREN`` would be the largest of all children so far.
    """
    begun = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=REPOSITORY
    ) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    row: dict[str, object] = {
        "stage": stage,
        "exit code": process.returncode,
        "CPU s": used.ru_utime + used.ru_stime,
        "wall s": time.perf_counter() - begun,
        "peak GB": used.ru_maxrss * 1024 / 1e9,
    }
    return row, output
