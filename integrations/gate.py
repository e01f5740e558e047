"""The guard's decision on a request of a framework; it fails closed."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerguard.runtime import Guard, InputError, Verdict

REFUSAL = "A safety guard stopped this request."
"""What a user reads instead of an answer. It has no reason: scores would help an attacker."""

FAILED = "A safety guard could not check this request."
"""What a user reads if the guard raised an error."""

_LOG = logging.getLogger("layerguard.integrations")


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a request may pass.

    Attributes:
        verdict: the guard's verdict; None if the guard raised an error.
        error: that error.
    """

    verdict: Verdict | None
    error: Exception | None = None

    @property
    def blocked(self) -> bool:
        """True if the text is flagged, or if there is no verdict on it."""
        return self.verdict is None or self.verdict.flagged

    @property
    def reason(self) -> str:
        """One sentence for operators; it may quote the request."""
        if self.verdict is None:
            return f"the guard raised {type(self.error).__name__}: {self.error}"
        return self.verdict.reason


class Gate:
    """A guard as the adapters call it. It is thread-safe and keeps nothing of a request.

    Attributes:
        guard: the guard that is asked.
    """

    def __init__(self, guard: Guard | str | Path) -> None:
        """Keep a guard, or load one.

        Args:
            guard: a loaded guard, a bundle's folder, or the name of an installed bundle.

        Raises:
            BundleError: as ``Guard.load``.
            MachineError: as ``Guard.load``.
        """
        self.guard = Guard.load(guard) if isinstance(guard, (str, Path)) else guard

    def decide(self, ask: Callable[[Guard], Verdict]) -> Decision:
        """The decision that follows from what ``ask`` gets from the guard: a verdict or an error.

        ``ask`` also brings the request into the guard's form; its own errors count as the guard's.
        """
        try:
            decision = Decision(ask(self.guard))
        except Exception as error:  # noqa: BLE001  whatever it is, there is no verdict
            _LOG.exception("blocked: the guard raised an error")
            return Decision(None, error)
        if decision.blocked:
            _LOG.warning("blocked: %s", decision.reason)
        return decision

    async def adecide(self, ask: Callable[[Guard], Verdict]) -> Decision:
        """Like ``decide``, in a thread, so that the event loop goes on."""
        return await asyncio.to_thread(self.decide, ask)


def check_each(guard: Guard, requests: Iterable[Mapping[str, Any]]) -> Verdict:
    """The verdict on the first flagged request; on the last one if none is flagged.

    Args:
        guard: the guard.
        requests: keyword arguments of ``Guard.check``; at least one request.

    Raises:
        InputError: there is no request, or one is wrong.
    """
    verdict = None
    for request in requests:
        verdict = guard.check(**request)
        if verdict.flagged:
            break
    if verdict is None:
        raise InputError("found nothing to check; expected at least one text")
    return verdict
