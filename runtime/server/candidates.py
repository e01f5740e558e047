"""Candidates: bundles that are asked what a served bundle was asked, to compare their answers.

A candidate changes no answer. Its work begins once the answer is there, and is skipped while the
queue is more than half full.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from layerguard.runtime.guard import Guard
from layerguard.runtime.server.answers import Answer
from layerguard.runtime.server.config import SchedulerConfig
from layerguard.runtime.server.errors import UnavailableError
from layerguard.runtime.server.jobs import check_job
from layerguard.runtime.server.metrics import Metrics
from layerguard.runtime.server.records import REQUEST_ID
from layerguard.runtime.server.scheduler import Scheduler
from layerguard.runtime.text.request import Request
from layerguard.runtime.types import Verdict

_LOG = logging.getLogger("layerguard.server")

Judge = Callable[[str, Guard, Verdict, str], Answer]
"""The answer with a verdict, from the bundle's name, its guard, the verdict and the contract."""


class Candidates:
    """Compares the answers of candidates with those that were given.

    Of each text the outcome is counted: the candidate ``agrees`` or ``disagrees`` on whether it is
    flagged, it ``failed``, or it was ``skipped``.
    """

    def __init__(
        self, pairs: Mapping[str, str], scheduler: Scheduler, metrics: Metrics, judge: Judge
    ) -> None:
        """Compare nothing yet.

        Args:
            pairs: name of the candidate by the name of the served bundle.
            scheduler: runs the work.
            metrics: counts the comparisons.
            judge: as ``Service.judged``.
        """
        self._pairs, self._scheduler, self._metrics = pairs, scheduler, metrics
        self._judge = judge
        self._tasks: set[asyncio.Task[None]] = set()

    def follow(
        self,
        given: Sequence[Answer],
        requests: Sequence[Request],
        domain: str | None,
        contract: str,
        guards: Mapping[str, Guard],
        config: SchedulerConfig,
    ) -> None:
        """Ask the candidate of a bundle what the bundle has answered, and return at once.

        Args:
            given: the answers of one bundle.
            requests: what they are for.
            domain: of the requests.
            contract: name of the contract.
            guards: that serve, by name.
            config: for the bounds of the queue, and the deadline.
        """
        checked = [pair for pair in zip(given, requests, strict=True) if pair[0].verdict]
        name = self._pairs.get(given[0].bundle) if given else None
        if name is None or not checked:
            return
        if self._scheduler.queued_jobs > config.queue_requests / 2:
            self._metrics.compared(given[0].bundle, name, "skipped", len(checked))
            return
        work = self._compare(name, guards[name], checked, domain, contract, config.deadline_s)
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _compare(
        self,
        name: str,
        guard: Guard,
        checked: Sequence[tuple[Answer, Request]],
        domain: str | None,
        contract: str,
        deadline_s: float,
    ) -> None:
        served = checked[0][0].bundle
        jobs = [check_job(guard, request, domain) for _, request in checked]
        try:
            verdicts = await self._scheduler.run_all(jobs, deadline_s)
        except UnavailableError:
            self._metrics.compared(served, name, "skipped", len(jobs))
            return
        except Exception:  # noqa: BLE001  nobody waits for it: it is logged and counted
            _LOG.exception("candidate %s failed on request %s", name, REQUEST_ID.get())
            self._metrics.compared(served, name, "failed", len(jobs))
            return
        for (answer, _), verdict in zip(checked, verdicts, strict=True):
            other = self._judge(name, guard, verdict, contract)
            outcome = "agrees" if other.flagged == answer.flagged else "disagrees"
            self._metrics.compared(served, name, outcome, 1)
            if other.flagged != answer.flagged:
                _LOG.info(
                    "request %s: %s gives %s, and candidate %s %s (%s)",
                    REQUEST_ID.get(), served, answer.decision, name, other.decision, other.reason,
                )  # fmt: skip
