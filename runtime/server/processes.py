"""Several processes that serve on one address: one that ends is started again."""

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
_WRONG = (InputError.exit_code, MachineError.exit_code)


class Supervisor:
    """Runs a function in several processes, and passes signals on to them."""

    def __init__(
        self, processes: int, target: Callable[..., None], arguments: tuple[Any, ...]
    ) -> None:
        """Start nothing yet.

        Args:
            processes: how many.
            target: runs in each; its last argument is the number of the process, from 0.
            arguments: those before; they and the target can be pickled.
        """
        self._count, self._target, self._arguments = processes, target, arguments
        self._running: dict[int, BaseProcess] = {}
        self._stopping = False

    def run(self) -> int:
        """Run until SIGTERM or SIGINT, or until a process of the first ones cannot serve.

        Returns:
            The exit code: 0 after a signal, else that of the process.
        """
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._stop)
        signal.signal(signal.SIGHUP, self._pass_on)
        for number in range(self._count):
            self._start(number)
        first, code = set(self._running.values()), 0
        while self._running:
            wait([process.sentinel for process in self._running.values()])
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
            target=self._target, args=(*self._arguments, number), name=f"layerguard-{number}"
        )
        process.start()
        self._running[number] = process
        _LOG.info("process %d has id %d", number, process.pid)
        if self._stopping:
            process.terminate()

    def _stop(self, signum: int, frame: FrameType | None = None) -> None:
        self._stopping = True
        self._pass_on(signal.SIGTERM if signum == signal.SIGINT else signum, frame)

    def _pass_on(self, signum: int, frame: FrameType | None = None) -> None:
        del frame
        for process in self._running.values():
            if process.pid is not None and process.exitcode is None:
                os.kill(process.pid, signum)
