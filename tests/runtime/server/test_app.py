"""What all contracts share: keys, ids, error forms, disconnected clients, probes and metrics."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from layerguard.runtime import InputError
from layerguard.runtime.server.app import create_app
from layerguard.runtime.server.config import Config, HttpConfig, SchedulerConfig
from layerguard.runtime.server.contracts import CONTRACTS, native
from layerguard.runtime.server.contracts.contract import Call, Contract, Endpoint
from layerguard.runtime.server.http import Keys, while_connected
from layerguard.runtime.server.service import Service
from tests.runtime.server.conftest import Connected

Make = Callable[..., Service]
_CHECK = {"text": "the garden"}


@pytest.fixture
def keys(tmp_path: Path) -> HttpConfig:
    """Settings with keys for clients and for operators."""
    (tmp_path / "keys").write_text("first\nsecond\n", encoding="utf-8")
    (tmp_path / "admin").write_text("operator\n", encoding="utf-8")
    return HttpConfig(keys_file=str(tmp_path / "keys"), admin_keys_file=str(tmp_path / "admin"))


def _asked(
    service: Service,
    connected: Connected,
    *calls: tuple[str, str, dict[str, Any]],
    load: bool = True,
) -> list[httpx.Response]:
    async def whole() -> list[httpx.Response]:
        async with connected(service) as client:
            if load:
                await service.reload()
            return [await client.request(method, path, **more) for method, path, more in calls]

    return asyncio.run(whole())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"x-api-key": "third"}, 401),
        ({"x-api-key": ""}, 401),
        ({"authorization": "Bearer third"}, 401),
        ({"authorization": "Basic first"}, 401),
        ({"x-api-key": "operator"}, 401),
        ({"x-api-key": "second"}, 200),
        ({"api-key": "first"}, 200),
        ({"authorization": "bearer first"}, 200),
    ],
)
def test_a_client_needs_one_of_the_keys(
    make_service: Make, connected: Connected, keys: HttpConfig, headers: dict[str, str], status: int
) -> None:
    """If the operator gave any; in the contract's error form."""
    call = ("POST", "/v1/check", {"json": _CHECK, "headers": headers})
    (response,) = _asked(make_service(http=keys), connected, call)
    assert response.status_code == status
    assert status == 200 or "found no valid API key" in response.json()["error"]["message"]


def test_probes_need_no_key_and_reload_needs_the_operators(
    make_service: Make, connected: Connected, keys: HttpConfig
) -> None:
    """A client's key does not open ``/admin``."""
    client, operator = {"x-api-key": "first"}, {"x-api-key": "operator"}
    found = _asked(
        make_service(http=keys),
        connected,
        ("GET", "/livez", {}),
        ("GET", "/readyz", {}),
        ("GET", "/metrics", {}),
        ("POST", "/admin/reload", {"headers": client}),
        ("POST", "/admin/reload", {"headers": operator}),
    )
    assert [response.status_code for response in found] == [200, 200, 200, 401, 200]
    assert found[-1].json()["bundles"].keys() == {"main", "strict"}


def test_a_reload_that_fails_says_why(connected: Connected, keys: HttpConfig, bundle: Path) -> None:
    """To operators; the earlier bundle still serves."""
    service = Service(Config({"main": str(bundle)}, http=keys))

    async def test() -> tuple[httpx.Response, httpx.Response]:
        async with connected(service) as client:
            await service.reload()
            (bundle / "score.onnx").write_bytes(b"")
            failed = await client.post("/admin/reload", headers={"x-api-key": "operator"})
            checked = await client.post("/v1/check", json=_CHECK, headers={"x-api-key": "first"})
            return failed, checked

    failed, checked = asyncio.run(test())
    assert (failed.status_code, checked.status_code) == (500, 200)
    message = failed.json()["error"]["message"]
    assert "the earlier bundles still serve" in message
    assert "score.onnx has 0 bytes" in message


def test_admin_is_closed_without_keys(make_service: Make, connected: Connected) -> None:
    """Nobody can reload a server whose operator gave no key for it."""
    (response,) = _asked(make_service(), connected, ("POST", "/admin/reload", {}))
    assert response.status_code == 404


def test_a_file_without_keys_is_refused(tmp_path: Path) -> None:
    """An empty file must not mean that every key is good."""
    (tmp_path / "keys").write_text("\n \n", encoding="utf-8")
    with pytest.raises(InputError, match="found no key"):
        Keys.read(str(tmp_path / "keys"))
    with pytest.raises(InputError, match="expected a file with one key per line"):
        Keys.read(str(tmp_path / "none"))


def test_the_server_is_ready_once_the_bundles_are_loaded(
    make_service: Make, connected: Connected
) -> None:
    """Before that it lives, and refuses with 503 and Retry-After."""
    live, ready, check = _asked(
        make_service(),
        connected,
        ("GET", "/livez", {}),
        ("GET", "/readyz", {}),
        ("POST", "/v1/check", {"json": _CHECK}),
        load=False,
    )
    assert (live.status_code, ready.status_code, check.status_code) == (200, 503, 503)
    assert check.headers["retry-after"] == "1"


def test_a_deadline_that_passes_is_a_503(make_service: Make, connected: Connected) -> None:
    """As every answer that is not there in time."""
    service = make_service(scheduler=SchedulerConfig(deadline_s=1e-9))
    (response,) = _asked(service, connected, ("POST", "/v1/check", {"json": _CHECK}))
    assert response.status_code == 503
    assert "retry-after" in response.headers
    text = service.metrics.text().decode()
    assert 'layerguard_shed_total{cause="deadline"} 1.0' in text


def test_a_failure_is_a_500_without_its_details(
    make_service: Make, connected: Connected, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has them, under the request's id."""
    service = make_service()

    async def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("secret path")

    service.check = fail  # type: ignore[method-assign]
    with caplog.at_level(logging.ERROR, "layerguard.server"):
        (response,) = _asked(service, connected, ("POST", "/v1/check", {"json": _CHECK}))
    assert response.status_code == 500
    assert "secret" not in response.text
    assert response.headers["x-request-id"] in response.json()["error"]["message"]
    assert response.headers["x-request-id"] in caplog.text
    assert "secret path" in caplog.text


@pytest.mark.parametrize(
    ("given", "kept"), [("abc-1", True), ("", False), ("x" * 200, False), ("a\tb", False)]
)
def test_a_usable_request_id_is_kept(
    make_service: Make, connected: Connected, given: str, *, kept: bool
) -> None:
    """Any other is replaced, so that it cannot forge a line of a log."""
    call = ("POST", "/v1/check", {"json": _CHECK, "headers": {"x-request-id": given}})
    (response,) = _asked(make_service(), connected, call)
    assert (response.headers["x-request-id"] == given) == kept
    assert response.headers["x-request-id"]


def test_a_path_that_does_not_exist_has_the_servers_error_form(
    make_service: Make, connected: Connected
) -> None:
    """404 and 405."""
    missing, wrong = _asked(
        make_service(), connected, ("GET", "/none", {}), ("GET", "/v1/check", {})
    )
    assert (missing.status_code, wrong.status_code) == (404, 405)
    assert missing.json() == {"error": {"message": "GET /none: not found", "status": 404}}


def test_an_encoded_body_is_refused(make_service: Make, connected: Connected) -> None:
    """Nothing here decompresses what a client sends."""
    more = {"content": b"x", "headers": {"content-encoding": "gzip"}}
    (response,) = _asked(make_service(), connected, ("POST", "/v1/check", more))
    assert response.status_code == 415


def test_the_metrics_count_what_was_answered(make_service: Make, connected: Connected) -> None:
    """By contract, direction, decision and mode; with stages, batches and the bundles."""
    strict = {"json": {"text": "a", "bundle": "strict"}}
    *_, response = _asked(
        make_service(),
        connected,
        ("POST", "/v1/check", {"json": _CHECK}),
        ("POST", "/v1/check", strict),
        ("GET", "/metrics", {}),
    )
    requests, rest = (
        'layerguard_requests_total{contract="native",',
        'direction="request",mode="enforce"} 1.0',
    )
    for line in (
        f'{requests}decision="pass",{rest}',
        f'{requests}decision="block",{rest}',
        'layerguard_flag_rate{bundle="strict"} 1.0',
        'layerguard_stage_seconds_count{stage="queue"} 2.0',
        'layerguard_stage_seconds_count{stage="graph"} 2.0',
        "layerguard_batch_rows_count 2.0",
        "layerguard_queue_requests 0.0",
        "layerguard_open_streams 0.0",
        'layerguard_flag_rate_e_value{bundle="strict",source=""}',
    ):
        assert line in response.text
    assert 'provider="cpu"' in response.text


def test_two_contracts_do_not_share_an_endpoint(make_service: Make) -> None:
    """The registry refuses duplicates."""

    async def handler(call: Call) -> Response:
        raise NotImplementedError(call)

    other = Contract("other", (Endpoint("POST", "/v1/check", handler),), native.error)
    with pytest.raises(ValueError, match=r"found POST /v1/check twice"):
        create_app(make_service(), (*CONTRACTS, other))


def test_the_work_of_a_client_that_goes_away_is_cancelled() -> None:
    """Within a turn of the event loop."""
    cancelled = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    async def whole() -> None:
        gone = asyncio.Event()

        async def receive() -> dict[str, str]:
            await gone.wait()
            return {"type": "http.disconnect"}

        task = asyncio.create_task(while_connected(HttpRequest({"type": "http"}, receive), work()))
        await asyncio.sleep(0.01)
        gone.set()
        with pytest.raises(ClientDisconnect):
            await task
        await asyncio.wait_for(cancelled.wait(), 1)

    asyncio.run(whole())


def test_work_that_is_cancelled_otherwise_is_no_disconnected_client() -> None:
    """The server that shuts down sees its own cancellation."""

    async def whole() -> None:
        async def receive() -> dict[str, str]:
            return await asyncio.get_running_loop().create_future()

        request = HttpRequest({"type": "http"}, receive)
        task = asyncio.create_task(while_connected(request, asyncio.sleep(60)))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(asyncio.all_tasks()) == 1, "the client is still watched"

    asyncio.run(whole())


def test_a_path_that_spells_a_parameter_is_one_of_its_values(
    make_service: Make, connected: Connected
) -> None:
    """``{model}`` is a name like any other."""
    (response,) = _asked(make_service(), connected, ("GET", "/v2/models/{model}", {}))
    assert response.status_code == 400
    assert "found '{model}'" in response.json()["error"]
