"""Callbacks of a call go to its owner; everything else is answered here. Needs no Ray."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from layerguard.runtime.server.app import create_app
from layerguard.runtime.server.config import Config, GuardConfig, HttpConfig
from layerguard.runtime.server.service import Service
from layerguard.scale.ray.forwarding import CALL_IDS, Answered, Forwarded, Forwarding, answer
from tests.integrations.bundles import flagging

_PATH = "/beta/litellm_basic_guardrail_api"
_BODY = {"input_type": "response", "texts": ["the garden"], "litellm_call_id": "call"}


class GoneError(Exception):
    """A replica is not there."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy bundle."""
    return flagging(tmp_path_factory.mktemp("guard") / "guard")


class Replicas:
    """Two services, and a way from the first one to the second.

    Attributes:
        sent: the ids and requests that were forwarded.
        gone: whether the second one cannot be reached.
    """

    def __init__(self, folder: Path, **http: Any) -> None:
        self.sent: list[tuple[str, Forwarded]] = []
        self.gone = False
        config = Config({"main": str(folder)}, HttpConfig(**http), GuardConfig(threads=1))
        self.here, self.owner = Service(config), Service(config)
        self.app = Forwarding(create_app(self.here), config.http, self._send, [GoneError])

    async def _send(self, key: str, request: Forwarded) -> Answered:
        self.sent.append((key, request))
        if self.gone:
            raise GoneError("the replica is gone")
        return await answer(create_app(self.owner), request)


def _with(
    replicas: Replicas, use: Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]
) -> httpx.Response:
    async def run() -> httpx.Response:
        for service in (replicas.here, replicas.owner):
            await service.reload()
        transport = httpx.ASGITransport(replicas.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://guard") as client:
            try:
                return await use(client)
            finally:
                for service in (replicas.here, replicas.owner):
                    await service.drain()

    return asyncio.run(run())


def _open(replicas: Replicas) -> tuple[list[str], list[str]]:
    """The metrics of both that count answers of the contract."""
    return tuple(  # type: ignore[return-value]
        [
            line.rpartition(" ")[2]
            for line in service.metrics.text().decode().splitlines()
            if line.startswith("layerguard_requests_total") and "litellm" in line
        ]
        for service in (replicas.here, replicas.owner)
    )


def test_contracts_say_which_field_has_the_id() -> None:
    """The contract that keeps growing answers between requests does."""
    assert CALL_IDS == {("POST", _PATH): "litellm_call_id"}


def test_a_callback_is_answered_by_the_owner_of_its_call(folder: Path) -> None:
    """With the response that the owner gives, headers included."""
    replicas = Replicas(folder)
    headers = {"x-request-id": "mine"}
    found = _with(replicas, lambda client: client.post(_PATH, json=_BODY, headers=headers))
    assert (found.status_code, found.json()) == (200, {"action": "NONE"})
    assert found.headers["x-request-id"] == "mine"
    ((key, request),) = replicas.sent
    assert key == "call"
    assert json.loads(request.body) == _BODY
    assert _open(replicas) == ([], ["1.0"])


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (json.dumps({**_BODY, "litellm_call_id": None}), {}),
        (json.dumps({**_BODY, "litellm_call_id": 3}), {}),
        (json.dumps({**_BODY, "litellm_call_id": "\ud800"}), {}),
        (json.dumps(_BODY), {"x-session-id": "call"}),
        ("{", {}),
        ("[]", {}),
        ("", {}),
    ],
)
def test_others_are_answered_here(folder: Path, content: str, headers: dict[str, str]) -> None:
    """Without an id, with one that is no text, and at its owner already; the body is whole."""
    replicas, alone = Replicas(folder), Replicas(folder)
    alone.app = create_app(alone.here)  # type: ignore[assignment]

    async def post(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post(_PATH, content=content, headers=headers)

    found, expected = _with(replicas, post), _with(alone, post)
    assert replicas.sent == []
    assert (found.status_code, found.json()) == (expected.status_code, expected.json())


def test_other_endpoints_are_not_read(folder: Path) -> None:
    """Their bodies go on as they arrive."""
    replicas = Replicas(folder)
    found = _with(replicas, lambda client: client.post("/v1/check", json={"text": "the garden"}))
    assert found.json()["flagged"] is False
    assert replicas.sent == []


def test_a_prefix_of_the_path_changes_nothing(folder: Path) -> None:
    """The application may be mounted anywhere."""
    replicas = Replicas(folder)
    mounted, call = replicas.app, {**_BODY, "litellm_call_id": "\u00fcber"}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await mounted({**scope, "root_path": "/guard"}, receive, send)

    replicas.app = app  # type: ignore[assignment]
    found = _with(replicas, lambda client: client.post(f"/guard{_PATH}", json=call))
    assert (found.status_code, found.json()) == (200, {"action": "NONE"})
    assert [key for key, _ in replicas.sent] == ["\u00fcber"]


def test_a_call_whose_owner_is_gone_is_answered_here(folder: Path) -> None:
    """The whole text is read here."""
    replicas = Replicas(folder)
    replicas.gone = True
    found = _with(replicas, lambda client: client.post(_PATH, json=_BODY))
    assert (found.status_code, found.json()) == (200, {"action": "NONE"})
    assert len(replicas.sent) == 1
    assert _open(replicas) == (["1.0"], [])


@pytest.mark.parametrize("size", [500, 10_000])
def test_a_body_beyond_the_limits_is_refused_in_the_contracts_form(folder: Path, size: int) -> None:
    """It is not forwarded, in however many parts it arrives."""
    replicas = Replicas(folder, body_bytes=1000)
    long = json.dumps({**_BODY, "texts": ["a" * 5000]}).encode()

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(long), size):
            yield long[start : start + size]

    found = _with(replicas, lambda client: client.post(_PATH, content=chunks()))
    assert (found.status_code, found.json()["action"]) == (413, "BLOCKED")
    assert replicas.sent == []


def test_replicas_do_not_wait_for_each_other_without_end(folder: Path) -> None:
    """As many requests as connections are forwarded at a time; the next one is answered here."""
    replicas = Replicas(folder, connections=1)
    replicas.app.waiting = 1
    found = _with(replicas, lambda client: client.post(_PATH, json=_BODY))
    assert found.json() == {"action": "NONE"}
    assert replicas.sent == []
    replicas.app.waiting = 0
    _with(replicas, lambda client: client.post(_PATH, json=_BODY))
    assert len(replicas.sent) == 1
    assert replicas.app.waiting == 0


def test_a_client_that_goes_away_ends_the_work_of_the_owner() -> None:
    """The call to the owner is cancelled, and nothing is counted as waiting."""
    ended: list[tuple[str, bytes]] = []

    async def never(key: str, request: Forwarded) -> Answered:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append((key, request.body))
            raise
        raise AssertionError

    async def here(*_: Any) -> None:
        raise AssertionError("a request of a client that is gone was answered here")

    body = json.dumps(_BODY).encode()
    messages = iter([{"type": "http.request", "body": body}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(messages)

    async def send(_: Any) -> None:
        pass

    app = Forwarding(here, HttpConfig(), never)
    scope = {"type": "http", "method": "POST", "path": _PATH, "headers": []}
    asyncio.run(app(scope, receive, send))
    assert ended == [("call", body)]
    assert app.waiting == 0
