"""How a guard is asked: a job as JSON on standard input, the answer as JSON on standard output.

The job: ``texts``; ``packages``, the distributions that the guard needs; and what else a guard
asks for. The answer: ``scores`` (larger is worse), ``flagged`` at the guard's own threshold, ``ms``
(processor time a text, children included), ``resident_mb`` (the peak of the process, or of its
largest child) and ``disk_mb`` (of the packages' files). Run by the Python of the guard's own
environment: nothing but the standard library is imported here.
"""

import json
import os
import re
import resource
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

Ask = Callable[[str], tuple[float, bool]]
"""The score of a text, and whether it is flagged."""


def answer(load: Callable[[dict[str, Any]], Ask]) -> None:
    """Load the guard for the job, ask it about every text, and write the answer."""
    output = os.dup(1)
    os.dup2(2, 1)  # what a library prints is no answer
    job = json.load(sys.stdin)
    ask = load(job)
    ask("A first text, which is not timed.")
    begun = _processor_seconds()
    answers = [ask(text) for text in job["texts"]]
    took = _processor_seconds() - begun
    content = {
        "scores": [score for score, _ in answers],
        "flagged": [flagged for _, flagged in answers],
        "ms": 1000 * took / len(answers),
        "resident_mb": _resident_mb(),
        "disk_mb": _disk_mb(job["packages"]),
    }
    with os.fdopen(output, "w", encoding="utf-8") as file:
        json.dump(content, file)


def _processor_seconds() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _resident_mb() -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    assert found
    own_mb = int(found[1]) / 1024
    return max(own_mb, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)


def _disk_mb(packages: Sequence[str]) -> float:
    files = [file for name in packages for file in distribution(name).files or ()]
    paths = [Path(str(file.locate())) for file in files]
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6
