"""The server's metrics, for Prometheus.

Labels have few values: contracts, directions, decisions, modes, stages, causes, names of bundles.
No label and no value holds a text.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from layerguard.runtime.guard import Guard
from layerguard.runtime.server.answers import Answer
from layerguard.runtime.server.jobs import Job
from layerguard.runtime.server.recent import Recent

_SECONDS = (
    0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.0, 2.0, 4.0, 8.0
)  # fmt: skip
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters and histograms of one service; the guards are read when Prometheus asks.

    Attributes:
        registry: what Prometheus reads.
    """

    def __init__(self) -> None:
        """Start at zero, in a registry of its own."""
        self.registry = CollectorRegistry()
        self._recent = Recent()
        self._answers: deque[tuple[str, str, Answer]] = deque()

        def counter(name: str, meaning: str, *labels: str) -> Counter:
            return Counter(f"layerguard_{name}", meaning, labels, registry=self.registry)

        self._requests = counter(
            "requests", "Texts by outcome", "contract", "direction", "decision", "mode"
        )
        self._tokens = counter("tokens", "Tokens of the checked texts")
        self._truncated = counter("truncated", "Texts of which a part was not read")
        self._shed = counter("shed", "Texts that got no answer, by cause", "cause")
        self._failed = counter("failed", "Texts that the guard failed on")
        self._compared = counter(
            "compared", "Texts that a candidate was asked too", "bundle", "candidate", "outcome"
        )
        self._stages = Histogram(
            "layerguard_stage_seconds",
            "Seconds of a check by stage; texts of a batch share its figures",
            ("stage",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._outcome = cache(self._requests.labels)  # a look-up takes longer than the count
        self._stage = cache(self._stages.labels)
        self._rows = Histogram(
            "layerguard_batch_rows", "Texts in a run", buckets=_ROWS, registry=self.registry
        )

    @property
    def recent(self) -> Recent:
        """What the page shows."""
        self._count()
        return self._recent

    def answered(self, contract: str, direction: str, answer: Answer) -> None:
        """Count an answer, in the loop's next turn: its response does not wait for that."""
        self._answers.append((contract, direction, answer))
        asyncio.get_running_loop().call_soon(self._count)

    def _count(self) -> None:
        while self._answers:
            self._count_answer(*self._answers.popleft())

    def _count_answer(self, contract: str, direction: str, answer: Answer) -> None:
        self._outcome(contract, direction, answer.decision, answer.mode).inc()
        self._recent.answered(contract, direction, answer)
        if answer.verdict is not None:
            self._tokens.inc(answer.verdict.tokens)
            self._truncated.inc(answer.verdict.truncated)
            for stage, milliseconds in answer.verdict.timings_ms.items():
                self._took(stage, milliseconds)

    def shed(self, cause: str, texts: int) -> None:
        """Count texts that got no answer because of the load."""
        self._shed.labels(cause).inc(texts)

    def failed(self, texts: int) -> None:
        """Count texts that the guard failed on."""
        self._failed.inc(texts)

    def compared(self, bundle: str, candidate: str, outcome: str, texts: int) -> None:
        """Count texts that a candidate was asked too; see ``Candidates`` for the outcomes."""
        self._compared.labels(bundle, candidate, outcome).inc(texts)

    def began(self, jobs: Sequence[Job]) -> None:
        """Count the run of some jobs."""
        self._rows.observe(len(jobs))
        for job in jobs:
            self._took("queue", job.queued_ms)

    def watch(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """Report a number that is read when Prometheus asks."""
        Gauge(f"layerguard_{name}", meaning, registry=self.registry).set_function(value)

    def watch_guards(self, guards: Callable[[], Mapping[str, Guard]]) -> None:
        """Report the guards that serve when Prometheus asks."""
        self.registry.register(_Guards(guards))

    def _took(self, stage: str, milliseconds: float) -> None:
        self._stage(stage).observe(milliseconds / 1e3)
        self._recent.took(stage, milliseconds)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        self._count()
        return generate_latest(self.registry)


class _Guards(Collector):
    """The flag rate, its target and the e-values of each guard, and what it is."""

    def __init__(self, guards: Callable[[], Mapping[str, Guard]]) -> None:
        self._guards = guards

    def collect(self) -> Iterable[Metric]:
        """The current values."""

        def gauge(name: str, meaning: str, *labels: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"layerguard_{name}", meaning, labels=("bundle", *labels))

        rate = gauge("flag_rate", "Share of texts that the detectors flagged")
        low = gauge("flag_rate_low", "Least share that was calibrated")
        high = gauge("flag_rate_high", "Largest share that was calibrated")
        left, apart = "the share left this interval", "p-values left the clean ones"
        e_value = gauge("flag_rate_e_value", f"Evidence that {left}", "source")
        drifting = gauge("flag_rate_drifting", f"Whether {left}: 1 or 0", "source")
        traffic = gauge("traffic_e_value", f"Evidence that {apart}", "source")
        changed = gauge("traffic_drifting", f"Whether {apart}: 1 or 0", "source")
        info = gauge("bundle_info", "The bundles that serve", "id", "model", "provider")
        for name, guard in self._guards().items():
            interval = guard.decision.promised[None]
            rate.add_metric([name], guard.monitor.rate)
            low.add_metric([name], interval[0])
            high.add_metric([name], interval[1])
            for source, flags in list(guard.monitor.sources.items()):
                e_value.add_metric([name, source or ""], flags.bets.e_value)
                drifting.add_metric([name, source or ""], flags.drifting)
            for source, martingale in list(guard.traffic.sources.items()):
                traffic.add_metric([name, source or ""], martingale.bets.e_value)
                changed.add_metric([name, source or ""], martingale.drifting)
            bundle = guard.bundle
            provider = guard.backbone.session.device
            info.add_metric([name, bundle.id, bundle.manifest.model.id, provider], 1)
        return [rate, low, high, e_value, drifting, traffic, changed, info]
