"""Runs jobs in a bounded pool of threads, as many together as their group allows.

An idle thread takes work at once, so nothing waits for a batch to fill. While all threads are busy,
jobs collect, and the next free thread takes the oldest job and others of its group with it. Batches
therefore grow with the load and only then.

The queue is bounded in jobs and in tokens. A job that does not fit is refused at once, because a
client that waits in vain costs more than one that asks again.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any, TypeVar

from layerguard.runtime.errors import InputError
from layerguard.runtime.server.config import SchedulerConfig
from layerguard.runtime.server.errors import DeadlineError, OverloadError
from layerguard.runtime.server.jobs import Alone, Group, Job
from layerguard.runtime.server.worker import Worker

T = TypeVar("T")


class Scheduler:
    """The queue and the threads. Use it from the event loop's thread only.

    Attributes:
        queued_jobs: jobs that wait for a thread.
        queued_tokens: the tokens of those jobs, estimated.
    """

    def __init__(
        self,
        config: SchedulerConfig,
        on_batch: Callable[[Sequence[Job]], None] | None = None,
    ) -> None:
        """Start without work.

        Args:
            config: sizes of the pool, the batches and the queue.
            on_batch: called before every run, with its jobs.
        """
        self._config, self._on_batch = config, on_batch
        self._workers = [Worker(f"layerguard_{number}") for number in range(config.workers)]
        self._idle = list(self._workers)
        self._queues: dict[Group, OrderedDict[Job, None]] = {}
        self._running: set[Group] = set()
        self._numbers = count()
        self._changed = asyncio.Event()
        self.queued_jobs, self.queued_tokens = 0, 0

    @property
    def is_idle(self) -> bool:
        """Whether there is no work at all."""
        return len(self._idle) == len(self._workers) and not self.queued_jobs

    def is_busy(self, group: Group) -> bool:
        """Whether a job of a group waits or runs."""
        return group in self._queues or group in self._running

    async def run_all(self, jobs: Sequence[Job], deadline_s: float) -> list[Any]:
        """The results of some jobs, in order.

        If this call is cancelled, jobs that have not begun never will.

        Raises:
            OverloadError: the queue has no place for all of them; none was queued.
            DeadlineError: a result was not there in time.
            InputError: there are more jobs than the queue may ever hold.
            Exception: the first one that a job raised.
        """
        self._admit(jobs)
        try:
            async with asyncio.timeout(deadline_s):
                return [await job.future for job in jobs]
        except TimeoutError as error:
            raise DeadlineError(
                f"found no answer within {deadline_s:g} s; expected one: ask again later"
            ) from error
        finally:
            for job in jobs:
                self._withdraw(job)

    async def run(self, function: Callable[[], T], deadline_s: float, tokens: int = 1) -> T:
        """What a function returns that runs in the pool by itself; errors as ``run_all``."""
        result: T = (await self.run_all([Job(Alone(), function, tokens)], deadline_s))[0]
        return result

    async def drain(self) -> None:
        """Wait until all work is done."""
        while not self.is_idle:
            self._changed.clear()
            await self._changed.wait()

    def close(self) -> None:
        """End the threads."""
        for worker in self._workers:
            worker.close()

    def _admit(self, jobs: Sequence[Job]) -> None:
        most = self._config.queue_requests
        if len(jobs) > most:
            raise InputError(f"found {len(jobs)} texts in one request; expected at most {most}")
        for job in jobs:  # one long text alone must fit
            job.tokens = min(job.tokens, self._config.queue_tokens)
        tokens = sum(job.tokens for job in jobs)
        full = self.queued_jobs + len(jobs) > most
        long = self.queued_tokens + tokens > self._config.queue_tokens and self.queued_jobs > 0
        if full or long:
            what = f"{self.queued_jobs} texts" if full else f"{self.queued_tokens} tokens"
            raise OverloadError(f"found {what} waiting already; expected fewer: ask again later")
        loop = asyncio.get_running_loop()
        for job in jobs:
            job.future, job.submitted = loop.create_future(), loop.time()
            job.number = next(self._numbers)
            self._queues.setdefault(job.group, OrderedDict())[job] = None
        self.queued_jobs += len(jobs)
        self.queued_tokens += tokens
        # requests that arrived in the same turn of the loop may share the first run
        loop.call_soon(self._dispatch)

    def _withdraw(self, job: Job) -> None:
        """Forget a job: nobody waits for it any more."""
        if job in self._queues.get(job.group, ()):
            self._take(job)
        if not job.future.cancel() and not job.future.cancelled():
            job.future.exception()  # an error that nobody asks for is not reported

    def _take(self, job: Job) -> Job:
        queue = self._queues[job.group]
        del queue[job]
        if not queue:
            del self._queues[job.group]
        self.queued_jobs -= 1
        self.queued_tokens -= job.tokens
        self._changed.set()
        return job

    def _dispatch(self) -> None:
        """Give work to the idle threads."""
        loop = asyncio.get_running_loop()
        while self._idle and (batch := self._next_batch()):
            worker = self._idle.pop()  # the last one that worked: its memory is in the caches
            group = batch[0].group
            if group.serial:
                self._running.add(group)
            now = loop.time()
            for job in batch:
                job.began = now
            if self._on_batch:
                self._on_batch(batch)
            worker.submit(partial(self._run_batch, worker, batch, loop))

    def _next_batch(self) -> list[Job]:
        """The oldest job, and others of its group within the budget; empty if there is none."""
        ready = [queue for group, queue in self._queues.items() if group not in self._running]
        if not ready:
            return []
        queue = min(ready, key=lambda queue: next(iter(queue)).number)
        most_rows = next(iter(queue)).group.most_rows or self._config.batch_rows
        batch: list[Job] = []
        longest = 0
        for job in queue:
            longest = max(longest, job.tokens)
            padded = (len(batch) + 1) * longest
            if batch and (len(batch) == most_rows or padded > self._config.batch_tokens):
                break
            batch.append(job)
        return [self._take(job) for job in batch]

    def _run_batch(
        self, worker: Worker, batch: Sequence[Job], loop: asyncio.AbstractEventLoop
    ) -> None:
        """Run some jobs of one group in the worker's thread, and tell the loop."""
        try:
            results = batch[0].group.run([job.argument for job in batch])
            if len(results) != len(batch):
                raise RuntimeError(f"found {len(results)} results of {len(batch)} jobs")  # noqa: TRY301
        except BaseException as error:  # noqa: BLE001  it is raised again, by whoever asked
            results = [error] * len(batch)
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(self._finish, worker, batch, results)

    def _finish(self, worker: Worker, batch: Sequence[Job], results: Sequence[Any]) -> None:
        self._idle.append(worker)
        self._running.discard(batch[0].group)
        for job, result in zip(batch, results, strict=True):
            if job.future.done():
                continue
            if isinstance(result, BaseException):
                job.future.set_exception(_raisable(result))
            else:
                job.future.set_result(result)
        self._changed.set()
        with suppress(RuntimeError):  # the loop is closing
            self._dispatch()


def _raisable(error: BaseException) -> Exception:
    """An error of a job, for its caller: none that would end the loop or cancel the request."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    raised = RuntimeError(f"a job raised {type(error).__name__}")
    raised.__cause__ = error
    return raised
