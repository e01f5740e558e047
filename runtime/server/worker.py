"""A thread that runs calls in the order in which they are given."""

import atexit
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread


class Worker:
    """One thread. A call tells its own result, and must not raise.

    A thread of ``ThreadPoolExecutor`` sets a future after each call, and the event loop that the
    call has woken waits for it, because both run Python.
    """

    def __init__(self, name: str) -> None:
        """Start the thread; at exit Python waits for its calls."""
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        atexit.register(self._end)

    def submit(self, call: Callable[[], None]) -> None:
        """Run a call after the earlier ones."""
        self._calls.put(call)

    def close(self) -> None:
        """End the thread once it has run its calls; return at once."""
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()

    def _end(self) -> None:
        self.close()
        self._thread.join()
