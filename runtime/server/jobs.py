"""Jobs for the scheduler, and the groups of jobs that may run together.

A group knows how to run some of its jobs in one call, in a thread of the pool.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from layerguard.runtime.guard import Guard
from layerguard.runtime.text.request import Request

_BYTES_PER_TOKEN = 4
"""UTF-8 bytes of a token, roughly, in any language; the scheduler needs no exact number."""


class Group(Protocol):
    """Jobs that may share a run. Groups are dictionary keys."""

    @property
    def most_rows(self) -> int | None:
        """Most jobs in one run; None: as the scheduler's settings say."""

    @property
    def serial(self) -> bool:
        """Whether a run must end before the next one of this group begins."""

    def run(self, arguments: Sequence[Any]) -> list[Any]:
        """The result of each job, or the exception that it raised."""


@dataclass(eq=False, slots=True)
class Job:
    """One piece of work.

    Attributes:
        group: the jobs that it may run with.
        argument: what the group needs to run it.
        tokens: estimate of the tokens that it costs, at least 1.
        future: the result.
        number: place in the order of arrival.
        submitted: time of arrival, in seconds of the loop's clock.
        began: when its run began, on the same clock.
    """

    group: Group
    argument: Any
    tokens: int
    future: asyncio.Future[Any] = field(init=False)
    number: int = field(init=False, default=0)
    submitted: float = field(init=False, default=0.0)
    began: float = field(init=False, default=0.0)

    @property
    def queued_ms(self) -> float:
        """Milliseconds that it waited for its run."""
        return (self.began - self.submitted) * 1e3


@dataclass(frozen=True, slots=True)
class Checks:
    """Requests of similar length for one guard.

    Attributes:
        guard: the guard.
        size: bit length of the requests' estimated tokens: the lengths differ by less than twice.
    """

    guard: Guard
    size: int
    serial = False

    @property
    def most_rows(self) -> int | None:
        """One for an int8 model, which runs one row at a time; see ``Backbone``."""
        return 1 if self.guard.bundle.manifest.model.dtype == "int8" else None

    def run(self, arguments: Sequence[tuple[Request, str | None]]) -> list[Any]:
        """A verdict for each request with its domain.

        If a request cannot be checked, each is checked alone: only its own caller gets the error.
        """
        requests, domains = zip(*arguments, strict=True)
        try:
            return list(self.guard.check_requests(requests, domains))
        except Exception as error:  # noqa: BLE001  it is raised again, by whoever asked
            if len(arguments) == 1:
                return [error]
            return [result for one in arguments for result in self.run([one])]


@dataclass(frozen=True, slots=True, eq=False)
class Alone:
    """One function that runs by itself."""

    most_rows = 1
    serial = False

    def run(self, arguments: Sequence[Callable[[], Any]]) -> list[Any]:
        """The result of each function, or the exception that it raised."""
        return [attempt(function) for function in arguments]


def attempt(function: Callable[[], Any]) -> Any:
    """What the function returns, or the exception that it raises."""
    try:
        return function()
    except Exception as error:  # noqa: BLE001  it is raised again, by whoever asked
        return error


def check_job(guard: Guard, request: Request, domain: str | None) -> Job:
    """The job of checking one request."""
    tokens = estimated_tokens(request)
    # below 32 tokens the fixed cost of a run dominates, so all those lengths are one group
    return Job(Checks(guard, max(tokens.bit_length(), 5)), (request, domain), tokens)


def estimated_tokens(request: Request) -> int:
    """Roughly the tokens of a request, at least 1, without tokenizing it."""
    return tokens_of(estimated_bytes(request))


def tokens_of(nbytes: int) -> int:
    """Roughly the tokens of a text of so many bytes, at least 1."""
    return 1 + nbytes // _BYTES_PER_TOKEN


def estimated_bytes(request: Request) -> int:
    """UTF-8 bytes of a request's texts."""
    if request.messages is None:
        return _bytes((request.prompt, request.response or ""))
    return _bytes((request.messages, request.tools or ()))


def _bytes(value: Any) -> int:
    """UTF-8 bytes of all texts in a JSON value."""
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode())
    if isinstance(value, Mapping):
        return sum(_bytes(key) + _bytes(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return sum(map(_bytes, value))
    return 0
