"""Makes guards usable in forked processes.

A fork copies the memory of a process but only the thread that called it. Locks that another thread
held stay locked, and thread pools have no threads. Running such a session never returns, and
neither does destroying it. In the child, this package therefore replaces all of its locks, and
never runs or destroys a session of the parent.
"""

import ctypes
import os
from functools import cache
from typing import Any, Protocol
from weakref import WeakSet


class Renewable(Protocol):
    """An object with locks or sessions that must be replaced in a forked process."""

    def renew(self) -> None:
        """Called in the child, right after the fork, before any other code."""


_REGISTERED: WeakSet[Any] = WeakSet()


def renew_after_fork(renewable: Renewable) -> None:
    """Call ``renewable.renew`` in every child process, as long as the object is alive."""
    _REGISTERED.add(renewable)


def keep_alive(obj: object) -> None:
    """Leak a reference, so that the object is never destroyed, not even at interpreter exit."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(obj))


@cache
def skip_exit_handlers_after_fork() -> None:
    """Skip, in forked processes, the C exit handlers that the parent's libraries registered.

    If telemetry was on at import, the handlers of onnxruntime 1.29 and later wait for a thread of
    the parent. Handlers that the child registers still run, and C streams are flushed.
    """
    os.register_at_fork(after_in_child=_skip_exit_handlers)


def _skip_exit_handlers() -> None:
    library = ctypes.CDLL(None)
    if hasattr(library, "on_exit"):  # glibc only; the last registered handler runs first
        for name in ("_exit", "fcloseall"):
            library.on_exit(ctypes.cast(getattr(library, name), ctypes.c_void_p), None)


def _renew_all() -> None:
    for renewable in list(_REGISTERED):
        renewable.renew()


os.register_at_fork(after_in_child=_renew_all)
