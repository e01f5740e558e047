"""OpenTelemetry's spans, as a collector receives them."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("opentelemetry.sdk", reason="needs layerguard[otel]")

from layerguard.runtime import InputError
from layerguard.runtime.server.config import Config, TraceConfig
from layerguard.runtime.server.service import Service
from layerguard.runtime.server.tracing import names
from tests.runtime.server.collector import Collector, attributes, collecting
from tests.runtime.server.processes import COMMAND, PATIENCE_S, served

_TURN = {"role": "user", "content": "the garden"}
_TEXT = "confidential gardens"
_TRACE, _PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
_SERVER, _INTERNAL = 2, 1
_ERROR = 2


def _flags(collector: Collector) -> tuple[str, ...]:
    return ("--traces", "otlp", "--traces-endpoint", collector.url)


def _ended(process: subprocess.Popen[str]) -> str:
    """Stop the server, which sends what is left; its log."""
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    return log


def _check(port: int, sampled: str = "01", **body: Any) -> httpx.Response:
    headers = {"traceparent": f"00-{_TRACE}-{_PARENT}-{sampled}", "x-request-id": "mine"}
    url = f"http://127.0.0.1:{port}/v1/check"
    return httpx.post(url, json=body or {"text": _TEXT}, headers=headers, timeout=PATIENCE_S)


def test_a_request_is_a_span_of_the_callers_trace(sound: Path) -> None:
    """With a span for the answer, which has the detectors as events and the stages as children."""
    with collecting() as collector, served(sound, *_flags(collector)) as (process, port):
        verdict = _check(port).json()
        _ended(process)
    by_name = {span.name: span for span in collector.spans()}
    assert by_name.keys() == {"POST /v1/check", "apply_guardrail main", *names.STAGES}
    request, answer = by_name["POST /v1/check"], by_name["apply_guardrail main"]
    assert {span.trace_id.hex() for span in by_name.values()} == {_TRACE}
    assert (request.parent_span_id.hex(), request.kind) == (_PARENT, _SERVER)
    assert (answer.parent_span_id, answer.kind) == (request.span_id, _INTERNAL)
    assert attributes(request) == {
        "http.request.method": "POST", "http.route": "/v1/check", "http.response.status_code": 200,
    }  # fmt: skip
    found = attributes(answer)
    assert found["gen_ai.operation.name"] == "apply_guardrail"
    assert found["gen_ai.guardrail.component.name"] == "layerguard"
    assert found["gen_ai.guardrail.policy.id"] == "main"
    assert found["gen_ai.guardrail.policy.version"] == verdict["bundle_id"]
    assert found["gen_ai.guardrail.source"] == "input"
    assert found["gen_ai.guardrail.result.type"] == "allow"
    assert found["gen_ai.guardrail.result.value"] == "pass"
    assert found["gen_ai.guardrail.result.reason"] == "ok; flagged by none"
    assert found["layerguard.request_id"] == "mine"
    assert found["layerguard.tokens"] == verdict["tokens"]
    assert {event.name for event in answer.events} == {"gen_ai.evaluation.result"}
    readings = {
        one["gen_ai.guardrail.policy.rule.id"]: one for one in map(attributes, answer.events)
    }
    assert readings.keys() == verdict["readings"].keys()
    for detector, reading in verdict["readings"].items():
        own = readings[detector]
        assert own["gen_ai.evaluation.score.value"] == reading["score"]
        assert own["layerguard.threshold"] == reading["threshold"]
        assert own["gen_ai.evaluation.score.label"] == "ok"


def test_the_stages_have_the_times_of_the_verdict(sound: Path) -> None:
    """One after the other, within the answer's span, which ends in the request's."""
    with collecting() as collector, served(sound, *_flags(collector)) as (process, port):
        verdict = _check(port).json()
        _ended(process)
    by_name = {span.name: span for span in collector.spans()}
    answer, request = by_name["apply_guardrail main"], by_name["POST /v1/check"]
    before = answer.start_time_unix_nano
    for name in names.STAGES:
        stage = by_name[name]
        assert stage.parent_span_id == answer.span_id
        assert stage.start_time_unix_nano == before
        before = stage.end_time_unix_nano
        if name != "queue":
            took = stage.end_time_unix_nano - stage.start_time_unix_nano
            assert took == pytest.approx(verdict["timings_ms"][name] * 1e6, abs=1)
    assert before <= answer.end_time_unix_nano <= request.end_time_unix_nano
    assert request.start_time_unix_nano <= answer.start_time_unix_nano + 1_000_000


def test_a_blocked_text_is_denied_and_in_no_span(strict: Path) -> None:
    """Neither a text nor a name that the client chose is sent."""
    chat = [{"role": "user", "content": _TEXT}, {"role": "assistant", "content": "swordfish"}]
    image = {"type": "image_url", "image_url": {"url": "https://portrait.example"}}
    with collecting() as collector, served(strict, *_flags(collector)) as (process, port):
        _check(port)
        _check(port, prompt=_TEXT, response="swordfish")
        _check(port, messages=[*chat, {"role": "user", "content": [image]}], domain="bakery")
        log = _ended(process)
    answers = [attributes(one) for one in collector.spans() if one.name == "apply_guardrail main"]
    assert len(answers) == 3
    for found in answers:
        assert found["gen_ai.guardrail.result.type"] == "deny"
        assert found["gen_ai.guardrail.risk.score"] >= 0.5
        assert "flagged by" in found["gen_ai.guardrail.result.reason"]
    sent = b"".join(collector.bodies)
    assert b"layerguard.request_id" in sent
    for word in ("confidential", "gardens", "swordfish", "portrait", "bakery"):
        assert word.encode() not in sent
        assert word not in log


def test_a_failure_is_an_error_and_probes_are_no_requests(sound: Path) -> None:
    """503 of a guard that has no time; without a parent the span begins a trace."""
    with (
        collecting() as collector,
        served(sound, "--deadline-s", "0.0011", *_flags(collector)) as (
            process,
            port,
        ),
    ):
        response = httpx.post(f"http://127.0.0.1:{port}/v1/check", json={"text": "word " * 20_000})
        assert response.status_code == 503
        _ended(process)
    (span,) = collector.spans()
    assert (span.parent_span_id, span.status.code) == (b"", _ERROR)
    assert attributes(span)["http.response.status_code"] == 503
    assert attributes(span)["error.type"] == "503"


def test_the_callers_sampling_and_the_variables_are_followed(
    sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trace that the caller does not sample has no spans here; the resource is the operator's."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "guard-of-tests")
    with collecting() as collector:
        base = collector.url.removesuffix("/v1/traces")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", base)
        with served(sound, "--traces", "otlp") as (process, port):
            _check(port, sampled="00")
            assert _check(port).status_code == 200
            _ended(process)
    assert [one.name for one in collector.spans()].count("POST /v1/check") == 1
    (resource,) = [attributes(part.resource) for part in collector.resources()]
    assert resource["service.name"] == "guard-of-tests"


def test_a_websocket_is_one_request(sound: Path) -> None:
    """With an answer for each verdict."""
    client_module = pytest.importorskip("websockets.sync.client", reason="needs layerguard[ws]")
    with collecting() as collector, served(sound, *_flags(collector)) as (process, port):
        with client_module.connect(f"ws://127.0.0.1:{port}/v1/stream") as client:
            for message in ({"prompt": "a"}, {"chunk": "b"}):
                client.send(json.dumps(message))
                client.recv(PATIENCE_S)
        _ended(process)
    spans = collector.spans()
    (request,) = [one for one in spans if one.name == "GET /v1/stream"]
    answers = [one for one in spans if one.name == "apply_guardrail main"]
    assert attributes(request)["http.response.status_code"] == 101
    assert [one.parent_span_id for one in answers] == [request.span_id] * 2
    assert [attributes(one)["gen_ai.guardrail.source"] for one in answers] == ["output"] * 2


def test_answers_to_envoy_belong_to_its_trace(sound: Path) -> None:
    """Those to the request and to the response, whose headers name none."""
    messages = pytest.importorskip(
        "layerguard.runtime.server.extproc.messages", reason="needs layerguard[extproc]"
    )
    from layerguard.runtime.server.extproc.processor import Exchange  # noqa: PLC0415

    parts = [messages.ProcessingRequest() for _ in range(4)]
    named = parts[0].request_headers.headers.headers.add()
    named.key, named.raw_value = "traceparent", f"00-{_TRACE}-{_PARENT}-01".encode()
    parts[1].request_body.body = json.dumps({"messages": [_TURN]}).encode()
    parts[2].response_headers.SetInParent()
    status = parts[2].response_headers.headers.headers.add()
    status.key, status.raw_value = ":status", b"200"
    choice = {"message": {"role": "assistant", "content": "rain"}}
    parts[3].response_body.body = json.dumps({"choices": [choice]}).encode()

    async def exchanged(url: str) -> None:
        config = Config({"main": str(sound)}, traces=TraceConfig("otlp", url))
        service = Service(config)
        await service.reload()
        exchange = Exchange(service)
        for part in parts:
            await exchange.respond(part)
        await service.drain()

    with collecting() as collector:
        asyncio.run(exchanged(collector.url))
    answers = [one for one in collector.spans() if one.name == "apply_guardrail main"]
    assert [attributes(one)["gen_ai.guardrail.source"] for one in answers] == ["input", "output"]
    assert {one.trace_id.hex() for one in answers} == {_TRACE}
    assert {one.parent_span_id.hex() for one in answers} == {_PARENT}


def test_a_collector_that_never_answers_does_not_hold_the_server(sound: Path) -> None:
    """It stops within ``drain_s``."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1/traces"
        flags = ("--traces", "otlp", "--traces-endpoint", url, "--drain-s", "1")
        with served(sound, *flags) as (process, port):
            assert _check(port).status_code == 200
            began = time.monotonic()
            _ended(process)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("baggage", ["mine=" + "%41" * 3_000, "mine," * 2_000, "mine"])
@pytest.mark.parametrize("parent", ["", "00-", "ff-" + "a" * 5_000, f"00-{_TRACE}-{_PARENT}-zz"])
def test_junk_in_headers_is_neither_an_error_nor_in_the_log(
    caplog: pytest.LogCaptureFixture, baggage: str, parent: str
) -> None:
    """A client chooses them."""
    from layerguard.runtime.server.tracing.spans import Traces  # noqa: PLC0415  an extra

    headers = {"traceparent": parent, "tracestate": "=" * 5_000, "baggage": baggage}
    with collecting() as collector:
        traces = Traces(TraceConfig("otlp", collector.url))
        with traces.request("POST", "/v1/check", headers), traces.continued(headers):
            pass
        asyncio.run(traces.close(PATIENCE_S))
    assert [span.name for span in collector.spans()] == ["POST /v1/check"]
    assert not any(b"mine" in body for body in collector.bodies)
    assert "mine" not in caplog.text
    assert "%41" not in caplog.text


def test_nothing_is_imported_without_the_setting() -> None:
    """The server starts as before."""
    code = (
        "import sys, layerguard.runtime.server.run; from layerguard.runtime.server.config import "
        "Config; from layerguard.runtime.server.service import Service; from "
        "layerguard.runtime.server.app import create_app; create_app(Service(Config())); "
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_server_without_the_extra_says_what_to_install(sound: Path) -> None:
    """Before it loads anything."""
    code = (
        "import sys; sys.modules['opentelemetry'] = None; from layerguard.runtime.cli import main;"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, *COMMAND[3:], os.fspath(sound), "--traces", "otlp"]
    done = subprocess.run(
        [*command, "--port", "0"],
        capture_output=True, text=True, check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 3
    assert "pip install 'layerguard[otel]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_endpoint_that_is_no_url_is_refused(sound: Path) -> None:
    """At the start, not with the first span."""
    config = Config({"main": str(sound)}, traces=TraceConfig("otlp", "collector:4318"))
    with pytest.raises(InputError, match="expected a URL such as http"):
        Service(config)


def test_every_name_is_in_the_documentation() -> None:
    """The table of the page has what the module has, and no more."""
    page = Path(__file__).parents[3] / "docs" / "server.md"
    section = page.read_text(encoding="utf-8").split("## Traces")[1].split("\n## ")[0]
    rows = [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")]
    spans = (names.GUARDRAIL_SPAN, names.DETECTOR_EVENT)
    texts = [one for name, one in vars(names).items() if name.isupper() and isinstance(one, str)]
    own = [one for one in texts if one not in spans]
    assert sorted(rows) == sorted(own)
