"""The scheduler: batches, bounds, deadlines and cancellation, with a guard that the test holds."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from layerguard.runtime import InputError
from layerguard.runtime.guard import Guard
from layerguard.runtime.server.config import SchedulerConfig
from layerguard.runtime.server.errors import DeadlineError, OverloadError
from layerguard.runtime.server.jobs import Job, check_job, estimated_tokens
from layerguard.runtime.server.scheduler import Scheduler
from layerguard.runtime.text.request import Request, request
from tests.runtime.server.guards import HeldGuard

_PATIENCE_S = 30.0


def _run(
    test: Callable[[Scheduler, HeldGuard], Awaitable[None]],
    config: SchedulerConfig | None = None,
    guard: HeldGuard | None = None,
) -> HeldGuard:
    guard = guard or HeldGuard()

    async def whole() -> None:
        scheduler = Scheduler(config or SchedulerConfig(workers=1))
        try:
            await test(scheduler, guard)
        finally:
            guard.release()
            await asyncio.wait_for(scheduler.drain(), _PATIENCE_S)
            assert scheduler.is_idle
            assert (scheduler.queued_jobs, scheduler.queued_tokens) == (0, 0)
            scheduler.close()

    asyncio.run(whole())
    return guard


def _job(guard: HeldGuard, text: str) -> Job:
    return check_job(cast("Guard", guard), Request(text), None)


async def _check(scheduler: Scheduler, guard: HeldGuard, *texts: str, within: float = 30) -> Any:
    return await scheduler.run_all([_job(guard, text) for text in texts], within)


async def _occupy(scheduler: Scheduler, guard: HeldGuard) -> asyncio.Task[Any]:
    """One request that runs until the guard is released."""
    guard.hold()
    task = asyncio.create_task(_check(scheduler, guard, "first"))
    assert await asyncio.to_thread(guard.began.acquire, timeout=_PATIENCE_S)
    return task


def test_an_idle_scheduler_runs_a_request_at_once() -> None:
    """Nothing waits for a batch to fill."""

    async def test(scheduler: Scheduler, guard: HeldGuard) -> None:
        assert await _check(scheduler, guard, "a") == ["A"]

    assert _run(test).runs == [["a"]]


def test_requests_that_wait_share_a_run_and_keep_their_order() -> None:
    """While the only thread is busy, requests of similar length collect."""

    async def test(scheduler: Scheduler, guard: HeldGuard) -> None:
        first = await _occupy(scheduler, guard)
        others = [asyncio.create_task(_check(scheduler, guard, text)) for text in "abcd"]
        await asyncio.sleep(0)
        guard.release()
        assert [await other for other in others] == [["A"], ["B"], ["C"], ["D"]]
        assert await first == ["FIRST"]

    assert _run(test).runs == [["first"], ["a", "b", "c", "d"]]


def test_a_run_is_bounded_in_rows_and_in_padded_tokens() -> None:
    """Two rows at most; and two long texts do not fit into one run of 100 tokens."""
    config = SchedulerConfig(workers=1, batch_rows=2, batch_tokens=100)
    long = "x" * 4 * 60

    async def test(scheduler: Scheduler, guard: HeldGuard) -> None:
        first = await _occupy(scheduler, guard)
        others = [asyncio.create_task(_check(scheduler, guard, *"abc", long, long + "y"))]
        await asyncio.sleep(0)
        guard.release()
        await asyncio.gather(first, *others)

    runs = _run(test, config).runs[1:]
    assert runs == [["a", "b"], ["c"], [long], [long + "y"]]


def test_texts_of_other_lengths_are_not_padded_together() -> None:
    """A short text does not share a run with a long one, and the oldest goes first."""
    long = "x" * 4 * 300

    async def test(scheduler: Scheduler, guard: HeldGuard) -> None:
        first = await _occupy(scheduler, guard)
        others = asyncio.create_task(_check(scheduler, guard, "a", long, "b"))
        await asyncio.sleep(0)
        guard.release()
        await asyncio.gather(first, others)

    assert _run(test).runs[1:] == [["a", "b"], [long]]


def test_an_int8_model_gets_one_row_a_run() -> None:
    """Its rows would share one scale, and it runs them one by one anyway."""

    async def test(scheduler: Scheduler, guard: HeldGuard) -> None:
        first = await _occupy(scheduler, guard)
        others = asyncio.create_task(_check(scheduler, guard, "a", "b"))
        await asyncio.sleep(0)
        guard.release()
        await asyncio.gather(first, others)

    assert _run(test, guard=HeldGuard("int8")).runs[1:] == [["a"], ["b"]]


def test_a_full_queue_refuses_at_once() -> None:
    """In requests: the third waiting one is refused, and the two others are answered."""
    config = SchedulerConfig(workers=1, queue_requests=2)

    async def test(scheduler: Scheduler, guard: HeldGuard) -> None:
        first = await _occupy(scheduler, guard)
        waiting = asyncio.create_task(_check(scheduler, guard, "a", "b"))
        await asyncio.sleep(0)
        with pytest.raises(OverloadError, match="found 2 texts waiting"):
            await _check(scheduler, guard, "c")
        assert scheduler.queued_jobs == 2
        guard.release()
        assert await waiting == ["A", "B"]
        await first

    _run(test, config)


def test_a_queue_that_is_full_of_tokens_refuses_at_once() -> None:
    """The bound on tokens holds, but one text alone always fits."""
    config = SchedulerConfig(workers=1, queue_tokens=50)

    async def test(scheduler: Scheduler, guard: HeldGuard) -> None:
        first = await _occupy(scheduler, guard)
        waiting = asyncio.create_task(_check(scheduler, guard, "x" * 4 * 1000))
        await asyncio.sleep(0)
        with pytest.raises(OverloadError, match="50 tokens waiting"):
            await _check(scheduler, guard, "c")
        guard.release()
        await asyncio.gather(first, waiting)

    _run(test, config)


def test_more_texts_than_the_queue_holds_are_a_wrong_request() -> None:
    """Asking again would never help."""

    async def test(scheduler: Scheduler, guard: HeldGuard) -> None:
        with pytest.raises(InputError, match="found 3 texts in one request; expected at most 2"):
            await _check(scheduler, guard, *"abc")

    _run(test, SchedulerConfig(queue_requests=2))


def test_a_deadline_ends_the_wait_and_the_work() -> None:
    """The caller gets the error in time, and what did not begin never runs."""

    async def test(scheduler: Scheduler, guard: HeldGuard) -> None:
        first = await _occupy(scheduler, guard)
        with pytest.raises(DeadlineError, match=r"no answer within 0\.01 s"):
            await _check(scheduler, guard, "late", within=0.01)
        assert scheduler.queued_jobs == 0
        guard.release()
        await first

    assert _run(test).runs == [["first"]]


def test_a_cancelled_request_never_runs() -> None:
    """A client that goes away frees its place in the queue."""

    async def test(scheduler: Scheduler, guard: HeldGuard) -> None:
        first = await _occupy(scheduler, guard)
        gone = asyncio.create_task(_check(scheduler, guard, "gone"))
        stays = asyncio.create_task(_check(scheduler, guard, "stays"))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert scheduler.queued_jobs == 1
        guard.release()
        assert await stays == ["STAYS"]
        await first

    assert _run(test).runs == [["first"], ["stays"]]


def test_only_the_request_that_fails_gets_the_error() -> None:
    """Its neighbours in the run are answered."""

    async def test(scheduler: Scheduler, guard: HeldGuard) -> None:
        first = await _occupy(scheduler, guard)
        others = [asyncio.create_task(_check(scheduler, guard, t)) for t in ("a", "bad", "c")]
        await asyncio.sleep(0)
        guard.release()
        results = await asyncio.gather(*others, return_exceptions=True)
        assert results[0] == ["A"]
        assert isinstance(results[1], ValueError)
        assert results[2] == ["C"]
        await first

    _run(test)


def test_the_runs_of_a_serial_group_do_not_overlap() -> None:
    """Two threads are free, and the second job still waits for the first."""

    class Serial:
        most_rows = 1
        serial = True

        def __init__(self) -> None:
            self.inside, self.most_inside = 0, 0

        def run(self, arguments: Any) -> list[Any]:
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
            time.sleep(0.005)  # long enough for another thread to get in
            self.inside -= 1
            return list(arguments)

    group = Serial()

    async def test(scheduler: Scheduler, guard: HeldGuard) -> None:
        del guard
        jobs = [Job(group, number, 1) for number in range(6)]
        assert await scheduler.run_all(jobs, 30) == list(range(6))

    _run(test, SchedulerConfig(workers=4))
    assert group.most_inside == 1


def test_requests_one_after_the_other_run_in_one_thread() -> None:
    """Of the idle threads, the last one that worked: its memory is in the processor's caches."""

    async def test(scheduler: Scheduler, guard: HeldGuard) -> None:
        del guard
        names = {
            await scheduler.run(lambda: threading.current_thread().name, 30) for _ in range(10)
        }
        assert len(names) == 1

    _run(test, SchedulerConfig(workers=4))


def test_as_many_runs_at_once_as_there_are_workers() -> None:
    """Each has a thread of its own."""

    async def test(scheduler: Scheduler, guard: HeldGuard) -> None:
        del guard
        together = threading.Barrier(3)
        waits = [scheduler.run(lambda: together.wait(_PATIENCE_S), 30) for _ in range(3)]
        assert sorted(await asyncio.gather(*waits)) == [0, 1, 2]

    _run(test, SchedulerConfig(workers=3))


def test_tokens_are_estimated_from_all_texts_of_a_request() -> None:
    """Of chats and tools too, in UTF-8 bytes."""
    chat = request(
        messages=[{"role": "user", "content": [{"type": "text", "text": "x" * 400}]}],
        tools=[{"name": "y" * 400}],
    )
    assert 200 <= estimated_tokens(chat) <= 220
    assert estimated_tokens(Request("")) == 1
    assert estimated_tokens(Request("語" * 400)) == 301
