"""Spans of requests and answers, and their way to a collector."""

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version

from opentelemetry.context import Context, attach, detach
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import extract
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, set_span_in_context, use_span
from opentelemetry.util.types import AttributeValue

from layerguard.runtime.errors import InputError
from layerguard.runtime.server.answers import Answer
from layerguard.runtime.server.config import TraceConfig
from layerguard.runtime.server.records import Record
from layerguard.runtime.server.tracing import names

_NS_PER_MS = 1_000_000
_SCHEMES = ("http://", "https://")


class Traces:
    """Makes spans and sends them. No span holds a text.

    Sending, sampling and the resource follow OpenTelemetry's own variables (``OTEL_...``).
    """

    def __init__(self, config: TraceConfig) -> None:
        """Start the thread that sends; nothing is sent yet.

        Raises:
            InputError: the endpoint is no URL.
        """
        if config.traces_endpoint and not config.traces_endpoint.startswith(_SCHEMES):
            raise InputError(
                f"traces_endpoint: found {config.traces_endpoint!r}; expected a URL such as "
                "http://127.0.0.1:4318/v1/traces"
            )
        self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        exporter = OTLPSpanExporter(config.traces_endpoint or None)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("layerguard", version("layerguard"))

    @contextmanager
    def request(self, method: str, route: str, headers: Mapping[str, str]) -> Iterator[Span]:
        """The span of a request, a child of the one that its headers name (``traceparent``)."""
        span = self._tracer.start_span(
            f"{method} {route}",
            _caller(headers),
            SpanKind.SERVER,
            {names.METHOD: method, names.ROUTE: route},
        )
        with use_span(span, end_on_exit=True, record_exception=False):
            yield span

    @contextmanager
    def continued(self, headers: Mapping[str, str]) -> Iterator[None]:
        """Make spans the children of the one that some headers name, without one for a request."""
        token = attach(_caller(headers))
        try:
            yield
        finally:
            detach(token)

    def answered(self, answer: Answer, record: Record) -> None:
        """The span of an answer that is given now, with its detectors and stages."""
        end = int(record.time * 1e9)
        start = end - round(record.latency_ms * _NS_PER_MS)
        name = f"{names.GUARDRAIL_SPAN} {record.bundle}"
        span = self._tracer.start_span(
            name, attributes=_attributes(answer, record), start_time=start
        )
        if span.is_recording():
            for detector in record.scores:
                found = _detector(answer, record, detector)
                span.add_event(names.DETECTOR_EVENT, found, timestamp=end)
            self._stages(answer, start, set_span_in_context(span))
        span.end(end)

    async def close(self, seconds: float) -> None:
        """Send what is left, for so long at most."""
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        await asyncio.to_thread(sending.join, seconds)

    def _stages(self, answer: Answer, start: int, parent: Context) -> None:
        """A span for each stage: they run one after the other."""
        verdict = answer.verdict
        if verdict is None:
            return
        for stage, milliseconds in {
            names.STAGES[0]: answer.queued_ms,
            **verdict.timings_ms,
        }.items():
            if stage in names.STAGES:
                span = self._tracer.start_span(stage, parent, start_time=start)
                start += round(milliseconds * _NS_PER_MS)
                span.end(start)


def _caller(headers: Mapping[str, str]) -> Context:
    """The caller's span. Baggage is left out: nothing uses it, and a wrong one would be logged."""
    return extract({name: value for name, value in headers.items() if name != "baggage"})


def _attributes(answer: Answer, record: Record) -> dict[str, AttributeValue]:
    found: dict[str, AttributeValue] = {
        names.OPERATION: names.GUARDRAIL_SPAN,
        names.COMPONENT: "layerguard",
        names.POLICY: record.bundle,
        names.POLICY_VERSION: record.bundle_id,
        names.SOURCE: names.SOURCES[record.direction],
        names.RESULT_TYPE: names.RESULT_TYPES[record.decision],
        names.RESULT_VALUE: record.decision,
        names.RISK_SCORE: answer.scores[""],
        names.REQUEST_ID: record.request_id,
        names.CONTRACT: record.contract,
        names.SETTINGS: record.settings,
        names.MODE: record.mode,
        names.TOKENS: record.tokens,
        names.TRUNCATED: record.truncated,
    }
    if answer.verdict is not None:
        flagging = [name for name, one in answer.verdict.readings.items() if one.flagged]
        # the sentence of the verdict may quote names that the client chose
        found[names.RESULT_REASON] = f"{record.status}; flagged by {', '.join(flagging) or 'none'}"
    if (p_value := record.p_values.get("")) is not None:
        found[names.P_VALUE] = p_value
    return found


def _detector(answer: Answer, record: Record, detector: str) -> dict[str, AttributeValue]:
    assert answer.verdict is not None
    shadow = detector in answer.verdict.shadow
    found: dict[str, AttributeValue] = {
        names.RULE: detector,
        names.DETECTOR: detector,
        names.SCORE: record.scores[detector],
        names.LABEL: "flagged" if answer.verdict.readings[detector].flagged else "ok",
        names.THRESHOLD: record.thresholds[detector],
        names.MODE: "shadow" if shadow else "enforce",
    }
    if (p_value := record.p_values[detector]) is not None:
        found[names.P_VALUE] = p_value
    return found


def _resource() -> Resource:
    """What the variables say, and the server's name if they say none."""
    given = Resource.create()
    own = {SERVICE_VERSION: version("layerguard")}
    if str(given.attributes[SERVICE_NAME]).startswith("unknown_service"):
        own[SERVICE_NAME] = "layerguard"
    return given.merge(Resource(own))
