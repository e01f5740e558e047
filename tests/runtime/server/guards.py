"""Guards for the tests of the server: a fake one that a test holds up, and what it was asked."""

import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from layerguard.runtime.text.request import Request


class HeldGuard:
    """Answers each request with its own prompt, in upper case; waits while it is held.

    Attributes:
        runs: the prompts of each run.
    """

    def __init__(self, dtype: str = "float32") -> None:
        self.bundle = SimpleNamespace(
            manifest=SimpleNamespace(model=SimpleNamespace(dtype=dtype)), id=dtype
        )
        self.runs: list[list[str]] = []
        self.began = threading.Semaphore(0)
        self._free = threading.Event()
        self._free.set()

    def hold(self) -> None:
        """Let runs wait."""
        self._free.clear()

    def release(self) -> None:
        """Let them end."""
        self._free.set()

    def check_requests(
        self, requests: Sequence[Request], domains: Sequence[str | None] | None = None
    ) -> list[Any]:
        """The prompts in upper case; ValueError if one of them is 'bad'."""
        del domains
        self.runs.append([one.prompt for one in requests])
        self.began.release()
        assert self._free.wait(30), "the test never released the guard"
        if any(one.prompt == "bad" for one in requests):
            raise ValueError("bad")
        return [one.prompt.upper() for one in requests]
