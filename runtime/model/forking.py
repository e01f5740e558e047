"""What becomes of a guard in a forked process.

A fork copies the memory of a process and only the thread that called it. Locks that another thread
held stay locked for ever, and thread pools have no threads: running such a session never returns,
and neither does destroying it. So in the child every lock of ours is made anew, and every session
of the parent is left alone: it is never run and never destroyed.
"""

import ctypes
import os
from functools import cache
from typing import Any, Protocol
from weakref import WeakSet


class Renewed(Protocol):
    """Something that has to be made usable in a forked process."""

    def renew(self) -> None:
        """Called in the child, right after the fork, before any other code."""


_THINGS: WeakSet[Any] = WeakSet()


def renew_after_fork(thing: Renewed) -> None:
    """Call ``thing.renew`` in every process that is forked from this one, while it is in use."""
    _THINGS.add(thing)


def keep_for_ever(thing: object) -> None:
    """Let nothing destroy an object, not even the end of the interpreter."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


@cache
def skip_exit_handlers_after_fork() -> None:
    """Let forked processes end without the exit handlers that this process's libraries registered.

    Those of onnxruntime 1.29 and later wait for a thread of the parent where telemetry was on when
    it was imported. Handlers that the child registers still run, and C streams are flushed.
    """
    os.register_at_fork(after_in_child=_skip_exit_handlers)


def _skip_exit_handlers() -> None:
    library = ctypes.CDLL(None)
    if hasattr(library, "on_exit"):  # of glibc; the last handler registered runs first
        for name in ("_exit", "fcloseall"):
            library.on_exit(ctypes.cast(getattr(library, name), ctypes.c_void_p), None)


def _renew_all() -> None:
    for thing in list(_THINGS):
        thing.renew()


os.register_at_fork(after_in_child=_renew_all)
