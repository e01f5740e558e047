"""Several processes that serve on one address: one that ends or hangs is started again."""

import logging
import os
import signal
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

from layerguard.runtime.errors import InputError, MachineError

_LOG = logging.getLogger("layerguard.server")
_RESTART_S = 1.0
"""Before a process that ended is started again: one that always ends must not take a core."""
_LOOK_S = 3.0
"""Between two looks at the counts of the processes."""
HUNG_LOOKS = 10
"""Looks after which a process whose count stands still is killed: half a minute. They are counted
here, so that a machine that slept kills nobody."""
_WRONG = (InputError.exit_code, MachineError.exit_code)


class Supervisor:
    """Runs a function in several processes, and passes signals on to them."""

    def __init__(
        self, processes: int, target: Callable[..., None], arguments: tuple[Any, ...]
    ) -> None:
        """Start nothing yet.

        Args:
            processes: how many.
            target: runs in each. Its last arguments are an array of counts and the number of the
                process, from 0: it changes its count at least every few seconds.
            arguments: those before; they and the target can be pickled.
        """
        self._processes, self._target, self._arguments = processes, target, arguments
        self._running: dict[int, BaseProcess] = {}
        self._stopping = False
        self._counts = get_context("spawn").Array("L", processes, lock=False)
        self._seen = [(0, 0)] * processes  # the last count of each, and the looks that it stood

    def run(self) -> int:
        """Run until SIGTERM or SIGINT, or until a process of the first ones cannot serve.

        Returns:
            The exit code: 0 after a signal, else that of the process.
        """
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._stop)
        signal.signal(signal.SIGHUP, self._pass_on)
        for number in range(self._processes):
            self._start(number)
        first, code = set(self._running.values()), 0
        while self._running:
            if not wait([process.sentinel for process in self._running.values()], _LOOK_S):
                self._kill_hung()
                continue
            for number, process in list(self._running.items()):
                if process.exitcode is None:
                    continue
                del self._running[number]
                if process.exitcode in _WRONG and process in first:
                    code = code or process.exitcode
                    self._stop(signal.SIGTERM)
                if not self._stopping:
                    _LOG.error("process %d ended with %d", number, process.exitcode)
                    time.sleep(_RESTART_S)
                if not self._stopping:
                    self._start(number)
        return code

    def _start(self, number: int) -> None:
        process = get_context("spawn").Process(
            target=self._target,
            args=(*self._arguments, self._counts, number),
            name=f"layerguard-{number}",
        )
        process.start()
        self._seen[number] = self._counts[number], -HUNG_LOOKS  # it imports first, then loads
        self._running[number] = process
        _LOG.info("process %d has id %d", number, process.pid)
        if self._stopping:
            process.terminate()

    def _kill_hung(self) -> None:
        """Kill each process whose count stood still for too many looks in turn."""
        for number, process in self._running.items():
            count, (before, looks) = self._counts[number], self._seen[number]
            looks = looks + 1 if count == before else 0
            if looks >= HUNG_LOOKS:
                _LOG.error("process %d hangs, and is killed", number)
                process.kill()
                looks = 0
            self._seen[number] = count, looks

    def _stop(self, signum: int, frame: FrameType | None = None) -> None:
        self._stopping = True
        self._pass_on(signal.SIGTERM if signum == signal.SIGINT else signum, frame)

    def _pass_on(self, signum: int, frame: FrameType | None = None) -> None:
        del frame
        for process in self._running.values():
            if process.pid is not None and process.exitcode is None:
                os.kill(process.pid, signum)
