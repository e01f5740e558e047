"""Messages of Envoy, and what its client gets for them."""

import asyncio
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from layerguard.runtime.server.extproc.messages import ProcessingRequest, ProcessingResponse
from layerguard.runtime.server.extproc.processor import Exchange
from layerguard.runtime.server.service import Service

Make = Callable[..., Service]


CHAT = {"model": "chat", "messages": [{"role": "user", "content": "the garden was quiet"}]}


def headers_of(phase: str, **values: str) -> Any:
    """A message with headers: ``__`` stands for a colon, ``_`` for a hyphen."""
    message = ProcessingRequest()
    getattr(message, phase).SetInParent()
    for name, value in values.items():
        one = getattr(message, phase).headers.headers.add()
        one.key, one.raw_value = name.replace("__", ":").replace("_", "-"), value.encode()
    return message


def body_of(phase: str, body: Any, *, last: bool = True) -> Any:
    """A message with a part of a body, as bytes or as what JSON shall hold."""
    message = ProcessingRequest()
    part = getattr(message, phase)
    part.body = body if isinstance(body, bytes) else json.dumps(body).encode()
    part.end_of_stream = last
    return message


def what_passed(found: list[Any], parts: list[bytes]) -> list[bytes]:
    """What a client gets for each part of an answer."""
    passed = []
    for one, part in zip(found, parts, strict=True):
        mutation = one.response_body.response.body_mutation
        replaced = mutation.body or mutation.clear_body
        passed.append(bytes(mutation.body) if replaced else part)
    return passed


def streamed(service: Service, *parts: bytes, call: Any = CHAT) -> list[bytes]:
    """What a client gets for each part of an answer of events; the last one ends it."""
    messages = [body_of("response_body", one, last=one is parts[-1]) for one in parts]
    kind = headers_of("response_headers", __status="200", content_type="text/event-stream")
    found = exchanged(service, body_of("request_body", call), kind, *messages)
    return what_passed(found[2:], list(parts))


def exchanged(service: Service, *messages: Any, load: bool = True) -> list[Any]:
    """What Envoy gets for some messages, as it came over the wire."""

    async def whole() -> list[Any]:
        if load:
            await service.reload()
        exchange = Exchange(service)
        try:
            found = [await exchange.respond(one) for one in messages]
        finally:
            exchange.close()
            await service.drain()
        return [ProcessingResponse.FromString(one.SerializeToString()) for one in found]

    return asyncio.run(whole())


def kind_of(response: Any) -> str:
    """What a response answers: the name of its field."""
    (name,) = [field.name for field, _ in response.ListFields() if field.name != "mode_override"]
    return str(name)


def flag(monkeypatch: pytest.MonkeyPatch, word: str) -> list[Any]:
    """Let texts with a word be blocked; the requests that were asked about, in order."""
    asked: list[Any] = []
    check, push = Service.check, Service.push

    async def checked(self: Service, requests: Any, **more: Any) -> Any:
        asked.extend(requests)
        return [
            _forced(a, word in r.content())
            for a, r in zip(await check(self, requests, **more), requests, strict=True)
        ]

    async def pushed(self: Service, key: str, text: str, request: Any, **more: Any) -> Any:
        asked.append((request, text))
        return _forced(await push(self, key, text, request, **more), word in text)

    monkeypatch.setattr(Service, "check", checked)
    monkeypatch.setattr(Service, "push", pushed)
    return asked


def _forced(answer: Any, blocked: bool) -> Any:
    return SimpleNamespace(blocked=blocked, reason=answer.reason)
