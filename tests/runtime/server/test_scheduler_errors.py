"""Whatever a job raises or returns, its caller gets an error, and the next job runs."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from layerguard.runtime.server.config import SchedulerConfig
from layerguard.runtime.server.errors import DeadlineError
from layerguard.runtime.server.jobs import Alone, Job
from layerguard.runtime.server.scheduler import Scheduler

_PATIENCE_S = 5.0


class _Short(Alone):
    """A group that loses results."""

    def run(self, arguments: Sequence[Callable[[], Any]]) -> list[Any]:
        """None of them."""
        del arguments
        return []


def _run(*jobs: Job) -> tuple[list[Any], Any]:
    """What the jobs raise one after the other, and what one after them returns."""

    async def whole() -> tuple[list[Any], Any]:
        scheduler = Scheduler(SchedulerConfig(workers=1))
        try:
            raised = []
            for job in jobs:
                given = asyncio.ensure_future(scheduler.run_all([job], _PATIENCE_S))
                raised += await asyncio.gather(given, return_exceptions=True)
            last = await scheduler.run(lambda: "next", _PATIENCE_S)
            await asyncio.wait_for(scheduler.drain(), _PATIENCE_S)
            return raised, last
        finally:
            scheduler.close()

    return asyncio.run(whole())


def _raising(error: BaseException) -> Job:
    def function() -> None:
        raise error

    return Job(Alone(), function, 1)


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        asyncio.CancelledError(),
        StopIteration(),
    ],
)
def test_what_would_end_the_loop_or_the_request_is_an_error_of_the_job(
    error: BaseException,
) -> None:
    """It neither ends the process nor looks like a client that has gone."""
    (raised,), last = _run(_raising(error))
    assert isinstance(raised, RuntimeError)
    assert type(error).__name__ in str(raised)
    assert last == "next"


def test_a_group_that_loses_results_fails_at_once() -> None:
    """Its callers do not wait for their deadline."""
    (raised,), last = _run(Job(_Short(), None, 1))
    assert isinstance(raised, Exception)
    assert not isinstance(raised, DeadlineError)
    assert last == "next"
