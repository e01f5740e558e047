"""One attack, and the process with limits in which it runs."""

import multiprocessing
import resource
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

MEBIBYTE = 1 << 20
_SLACK_MIB = 1024
"""Address space beyond the limit of memory: threads and libraries reserve more than they use."""

_LAST_SECONDS = 5
"""For a process to end after its answer, before it is ended."""


@dataclass(frozen=True, slots=True)
class Attack:
    """What someone may try, and what it may cost.

    Attributes:
        name: the row of the table.
        run: tries it in an empty folder, and raises if the guard does not hold.
        seconds: of processor time that it may take.
        mebibytes: by which the resident memory of its process may grow.
        deadline_s: seconds until its process is ended; a busy machine takes longer than its
            processors do.
    """

    name: str
    run: Callable[[Path], object]
    seconds: float = 2.0
    mebibytes: int = 256
    deadline_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attack came to.

    Attributes:
        fault: why it did not hold; empty if it held.
        seconds: of processor time.
        mebibytes: growth of resident memory at its peak.
    """

    fault: str
    seconds: float = 0.0
    mebibytes: float = 0.0


def attempt(attack: Attack, folder: Path) -> Outcome:
    """Run an attack in a process of its own, with its limits.

    Args:
        attack: as it stands in the catalogue: its function is found by name in the other process.
        folder: an empty folder, for its files.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.attacks.catalogue"])
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_attempt, args=(attack, folder, there))
    start = time.monotonic()
    process.start()
    there.close()
    try:
        outcome: Outcome = (
            here.recv()
            if here.poll(attack.deadline_s)
            else Outcome(f"it was not done after {time.monotonic() - start:.0f} s")
        )
    except EOFError:
        process.join()
        outcome = Outcome(f"its process ended with code {process.exitcode}")
    if not outcome.fault:
        process.join(_LAST_SECONDS)
    process.kill()
    process.join()
    here.close()
    return outcome


def _attempt(attack: Attack, folder: Path, answer: Connection) -> None:
    """The other process: set the limits, try, and send what came of it."""
    most_seconds = int(attack.seconds) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (most_seconds, most_seconds))
    space = status_kib("VmSize") * 1024 + (attack.mebibytes + _SLACK_MIB) * MEBIBYTE
    resource.setrlimit(resource.RLIMIT_AS, (space, space))
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    before, start = status_kib("VmRSS"), time.process_time()
    try:
        attack.run(folder)
    except BaseException as error:  # noqa: BLE001  pytest's failures are no exceptions of Python's
        where = traceback.extract_tb(error.__traceback__)[-1].line
        fault = f"{type(error).__name__}: {str(error) or where}".splitlines()[0][:300]
    else:
        fault = ""
    seconds = time.process_time() - start
    mebibytes = (status_kib("VmHWM") - before) / 1024
    if not fault and seconds > attack.seconds:
        fault = "it took too long"
    if not fault and mebibytes > attack.mebibytes:
        fault = "it took too much memory"
    answer.send(Outcome(fault, seconds, mebibytes))


def status_kib(name: str) -> int:
    """A value of this process's memory, such as ``VmHWM``, the peak of its resident memory."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise LookupError(name)
