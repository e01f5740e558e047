"""The service: named guards, the modes of the operator, and the errors of the load.

Contracts call ``check`` for whole texts and ``push`` for an answer that is still being written. All
work runs in the scheduler; nothing here blocks the event loop.
"""

import asyncio
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from layerguard.runtime.errors import InputError
from layerguard.runtime.extras import needing
from layerguard.runtime.guard import Guard
from layerguard.runtime.server.answers import Answer, answer
from layerguard.runtime.server.audit import AuditLog
from layerguard.runtime.server.candidates import Candidates
from layerguard.runtime.server.config import Config, Mode, TraceConfig
from layerguard.runtime.server.errors import OverloadError, UnavailableError
from layerguard.runtime.server.jobs import Job, check_job, tokens_of
from layerguard.runtime.server.metrics import Metrics
from layerguard.runtime.server.named_detectors import need_detectors
from layerguard.runtime.server.records import record
from layerguard.runtime.server.scheduler import Scheduler
from layerguard.runtime.server.streams import AnswerStore
from layerguard.runtime.text.request import Request, check_text
from layerguard.runtime.types import Verdict

if TYPE_CHECKING:
    from layerguard.runtime.server.tracing.spans import Traces

Direction = Literal["request", "response"]
"""Whether a text goes to the model or comes from it."""

Loader = Callable[[str], Guard]
"""Loads the bundle in a folder, or the installed one of a name."""

_LOG = logging.getLogger("layerguard.server")


def guard_loader(config: Config) -> Loader:
    """``Guard.load`` with the operator's settings."""
    own = config.guard
    return partial(
        Guard.load,
        device=own.device,
        threads=own.threads,
        weights=own.weights,
        verify=own.verify or None,
        timeout=own.load_s or None,
        on_unfamiliar=own.on_unfamiliar or None,
        on_unread=own.on_unread or None,
    )


class Service:
    """Answers requests with the guards of the settings. Use it from one event loop.

    Attributes:
        config: the settings.
        guards: the guards that serve, by name; the first answers requests that name none.
        metrics: what was counted.
        traces: makes spans; None if the operator wants none.
        draining: whether new requests are refused, because the server is shutting down.
    """

    def __init__(self, config: Config, load: Loader | None = None) -> None:
        """Serve nothing yet: ``reload`` loads the bundles.

        Args:
            config: the settings.
            load: loads a bundle; None: ``Guard.load`` with the settings.

        Raises:
            InputError: the audit log cannot be written, or spans cannot be sent to their endpoint.
            MachineError: traces are wanted, and the extra is not installed.
        """
        self.config = config
        self.guards: Mapping[str, Guard] = {}
        self.metrics = Metrics()
        self.draining = False
        self._audit = AuditLog(config.audit) if config.audit.audit_file else None
        self.traces = _traces(config.traces) if config.traces.traces == "otlp" else None
        self._settings = _hash_of(asdict(config.guard))
        self._load = load or guard_loader(config)
        self._scheduler = Scheduler(config.scheduler, self.metrics.began)
        self._answers = AnswerStore(config.streams, self._scheduler.is_busy)
        self._candidates = Candidates(
            config.guard.shadow, self._scheduler, self.metrics, self.judged
        )
        self._reloading = asyncio.Lock()
        watch = self.metrics.watch
        watch("queue_requests", "Texts that wait", lambda: self.waiting[0])
        watch("queue_tokens", "Tokens that wait, estimated", lambda: self.waiting[1])
        watch("open_streams", "Answers that are still being written", lambda: self.open_answers)
        self.metrics.watch_guards(lambda: self.guards)

    @property
    def ready(self) -> bool:
        """Whether requests are answered: the bundles are loaded and their canaries replayed."""
        return bool(self.guards) and not self.draining

    @property
    def waiting(self) -> tuple[int, int]:
        """Texts that wait, and their tokens, estimated."""
        return self._scheduler.queued_jobs, self._scheduler.queued_tokens

    @property
    def open_answers(self) -> int:
        """Answers that are still being written."""
        return len(self._answers)

    async def check(
        self,
        requests: Sequence[Request],
        *,
        contract: str,
        direction: Direction = "request",
        bundle: str | None = None,
        domain: str | None = None,
        key: str | None = None,
        deadline_s: float | None = None,
    ) -> list[Answer]:
        """The answers to some requests, in order. If this call is cancelled, so is their work.

        Args:
            requests: what to check.
            contract: name of the contract, for the modes and metrics.
            direction: whether the texts go to the model or come from it.
            bundle: name of a bundle; None: the first one.
            domain: kind of traffic; see ``Guard.check``.
            key: id of the call; the answer to the last request is then read with ``push``.
            deadline_s: seconds; None: as the settings say.

        Raises:
            InputError: a request is wrong, or there is no such bundle.
            UnavailableError: the guard cannot answer now.
            Exception: the guard failed. With ``on_error = "allow"``, and in shadow mode, neither of
                these two is raised by a guard that serves: the answers then have no verdict.
        """
        name, guard = self._guard(bundle, domain)
        if key is not None and requests:
            self._answers.get(key, _now(), guard, requests[-1], domain)
        began = _now()
        jobs = [check_job(guard, one, domain) for one in requests]
        answers = await self._answered(name, guard, jobs, contract, deadline_s)
        for one, given in zip(requests, answers, strict=True):
            self.keep(given, one, contract, direction, began)
        self._candidates.follow(
            answers, requests, domain, contract, self.guards, self.config.scheduler
        )
        return answers

    async def push(
        self,
        key: str,
        text: str,
        request: Request | None = None,
        *,
        contract: str,
        bundle: str | None = None,
        domain: str | None = None,
        deadline_s: float | None = None,
    ) -> Answer:
        """The answer to everything that a model has written so far; only what is new is read.

        A call with the same text again gives the same answer, and a text that does not continue
        the last one is read from its beginning.

        Args:
            key: id of the call.
            text: all of the model's answer so far.
            request: what the answer is for, without it; None: the last one that ``check`` had with
                this key, or an empty prompt.
            contract: as in ``check``, and so are the other arguments and the errors.
            bundle: of the first call with this key; later ones do not change it.
            domain: the same.
            deadline_s: seconds; None: as the settings say.
        """
        name, guard = self._guard(bundle, domain)
        check_text("text", text)
        began = _now()
        growing = self._answers.get(key, began, guard, request, domain)
        job = Job(growing, text, tokens_of(growing.new_bytes(text)))
        try:
            (given,) = await self._answered(name, growing.guard, [job], contract, deadline_s)
        finally:
            self._answers.count(growing)
        self.keep(given, growing.request, contract, "response", began, text)
        return given

    def continued(self, headers: Mapping[str, str]) -> AbstractContextManager[None]:
        """Answers within it belong to the trace that some headers name (``traceparent``)."""
        return nullcontext() if self.traces is None else self.traces.continued(headers)

    def close(self, key: str) -> None:
        """Forget the answer of a key: the call has ended."""
        self._answers.close(key)

    def keep(
        self,
        given: Answer,
        request: Request,
        contract: str,
        direction: Direction,
        began: float,
        text: str | None = None,
    ) -> None:
        """Count an answer, remember it, write it into the audit log and the trace.

        Args:
            given: the answer.
            request: what it is for.
            contract: name of the contract.
            direction: whether the text goes to the model or comes from it.
            began: when the service was asked, in seconds of the loop's clock.
            text: of an answer that is still being written: what was written so far.

        Raises:
            OSError: the audit log cannot be written, and failures are not to pass.
        """
        self.metrics.answered(contract, direction, given)
        if self._audit is None and self.traces is None:
            return
        kept = record(given, contract, direction, self._settings, (_now() - began) * 1e3)
        if self.traces is not None:
            self.traces.answered(given, kept)
        if self._audit is None:
            return
        try:
            self._audit.write(kept, request, text)
        except OSError:
            if self.config.guard.on_error == "block":
                raise
            _LOG.exception("an answer was given that the audit log lacks")

    async def run(self, function: Callable[[], Any], deadline_s: float | None = None) -> Any:
        """What a function returns that runs in the pool of threads; errors as ``check``."""
        self._need_ready()
        return await self._scheduler.run(function, self._deadline(deadline_s))

    async def reload(self) -> dict[str, str]:
        """Load all bundles again, and serve them once all are loaded.

        Requests that were asked before are answered by the earlier guards. A bundle that has not
        changed keeps its guard, and the counts of its traffic.

        Returns:
            The id of each bundle, by name.

        Raises:
            LayerGuardError: a bundle is not served, or the settings name a detector that no bundle
                has; the earlier ones still serve.
        """
        async with self._reloading:
            if self._audit is not None:
                self._audit.reopen()
            loaded: dict[str, Guard] = {}
            for name, where in self.config.bundles.items():
                guard = await asyncio.to_thread(self._load, where)
                before = self.guards.get(name)
                unchanged = before is not None and before.bundle.id == guard.bundle.id
                loaded[name] = before if before is not None and unchanged else guard
            need_detectors(self.config, loaded)
            self.guards = loaded
        return {name: guard.bundle.id for name, guard in loaded.items()}

    async def tend(self, every_s: float = 1.0) -> None:
        """Close answers that nobody asks about any more, for ever."""
        while True:
            await asyncio.sleep(every_s)
            self._answers.trim(_now())

    async def drain(self) -> None:
        """Refuse new requests, wait for the others, and end the threads."""
        self.draining = True
        with suppress(TimeoutError):
            await asyncio.wait_for(self._scheduler.drain(), self.config.http.drain_s)
        self._answers.clear()
        self._scheduler.close()
        if self._audit is not None:
            self._audit.close()
        if self.traces is not None:
            await self.traces.close(self.config.http.drain_s)

    def mode(self, contract: str) -> Mode:
        """The mode of a contract."""
        return self.config.guard.route_modes.get(contract, self.config.guard.mode)

    def judged(
        self, name: str, guard: Guard, verdict: Verdict, contract: str, queued_ms: float = 0.0
    ) -> Answer:
        """The answer with a verdict, under the modes of the contract and of the detectors."""
        modes, manifest = self.config.guard.detector_modes, guard.bundle.manifest
        return answer(name, manifest, verdict, self.mode(contract), modes, queued_ms)

    def named(self, bundle: str | None = None) -> tuple[str, Guard]:
        """The name and the guard of a bundle; None: the first one.

        Raises:
            InputError: there is no such guard.
            OverloadError: the server is starting or shutting down.
        """
        return self._guard(bundle, None)

    def _guard(self, bundle: str | None, domain: str | None) -> tuple[str, Guard]:
        self._need_ready()
        name = next(iter(self.guards)) if bundle is None else bundle
        if name not in self.guards:
            known = ", ".join(self.guards)
            raise InputError(f"bundle: found {name[:80]!r}; expected one of {known}")
        if domain is not None:
            check_text("domain", domain)
        return name, self.guards[name]

    def _need_ready(self) -> None:
        if not self.ready:
            state = "shutting down" if self.draining else "starting"
            raise OverloadError(f"the server is {state}: ask another one, or again later")

    def _deadline(self, deadline_s: float | None) -> float:
        own = self.config.scheduler.deadline_s
        return own if deadline_s is None else min(own, deadline_s)

    async def _answered(
        self,
        name: str,
        guard: Guard,
        jobs: Sequence[Job],
        contract: str,
        deadline_s: float | None,
    ) -> list[Answer]:
        mode = self.mode(contract)
        if mode == "off":
            return [Answer(name, mode, None, {"": 0.0})] * len(jobs)
        work = self._scheduler.run_all(jobs, self._deadline(deadline_s))
        may_fail = mode == "shadow" or self.config.guard.on_error == "allow"
        verdicts, error = await self._verdicts(work, len(jobs), may_fail=may_fail)
        if error:
            return [Answer(name, mode, None, {"": 0.0}, error)] * len(jobs)
        return [
            self.judged(name, guard, verdict, contract, job.queued_ms)
            for verdict, job in zip(verdicts, jobs, strict=True)
        ]

    async def _verdicts(
        self, work: Awaitable[list[Verdict]], texts: int, *, may_fail: bool
    ) -> tuple[list[Verdict], str]:
        """The verdicts; or why there are none, if such texts may pass."""
        try:
            return await work, ""
        except InputError:
            raise
        except Exception as error:
            if isinstance(error, UnavailableError):
                self.metrics.shed(error.cause, texts)
            else:
                self.metrics.failed(texts)
            if not may_fail:
                raise
            return [], f"not checked: {error}"


def _now() -> float:
    return asyncio.get_running_loop().time()


def _traces(config: TraceConfig) -> "Traces":
    """What makes the spans.

    Raises:
        InputError: the endpoint is no URL.
        MachineError: a package is not installed.
    """
    with needing("otel", 'traces = "otlp"'):
        from layerguard.runtime.server.tracing.spans import Traces  # noqa: PLC0415
    return Traces(config)


def _hash_of(settings: Mapping[str, Any]) -> str:
    """The first 16 hex digits of the settings' sha256."""
    content = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]
