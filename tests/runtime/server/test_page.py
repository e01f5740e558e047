"""The page: its files and figures over HTTP. ``test_page_in_browser`` looks at it."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from layerguard.runtime.server.config import HttpConfig
from layerguard.runtime.server.page.endpoints import FILES
from layerguard.runtime.server.service import Service
from tests.runtime.server.conftest import Connected

Make = Callable[..., Service]
_STATUS = ("GET", "/page/status.json", {})


def _asked(
    service: Service, connected: Connected, *calls: tuple[str, str, dict[str, Any]]
) -> list[httpx.Response]:
    async def whole() -> list[httpx.Response]:
        async with connected(service) as client:
            await service.reload()
            return [await client.request(method, path, **more) for method, path, more in calls]

    return asyncio.run(whole())


def test_every_file_is_served_with_a_policy_that_lets_no_other_script_run(
    make_service: Make, connected: Connected
) -> None:
    """And no other page show it."""
    paths = [endpoint.path for endpoint in FILES.endpoints]
    for response in _asked(make_service(), connected, *(("GET", path, {}) for path in paths)):
        policy = response.headers["content-security-policy"]
        assert response.status_code == 200
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "frame-ancestors 'none'" in policy
        assert response.headers["x-content-type-options"] == "nosniff"


def test_the_page_names_no_other_host(make_service: Make, connected: Connected) -> None:
    """Nothing is fetched from elsewhere, and nothing stands in the markup that the policy stops."""
    paths = [endpoint.path for endpoint in FILES.endpoints]
    for response in _asked(make_service(), connected, *(("GET", path, {}) for path in paths)):
        text = response.text.replace("http://www.w3.org/2000/svg", "")
        assert "//" not in text.replace("// ", "")
        for word in ("style=", "onclick", "innerHTML", "eval("):
            assert word not in text


def test_the_figures_follow_the_traffic_and_hold_no_text(
    make_service: Make, connected: Connected
) -> None:
    """Decisions, stages, the flag rate with its interval, the e-value and the queue."""
    *_, response = _asked(
        make_service(),
        connected,
        ("POST", "/v1/check", {"json": {"text": "the garden was quiet"}}),
        ("POST", "/v1/check", {"json": {"text": "the garden", "bundle": "strict"}}),
        _STATUS,
    )
    status = response.json()
    assert response.headers["cache-control"] == "no-store"
    assert "garden" not in response.text
    assert status["ready"]
    assert [row["decision"] for row in status["decisions"]] == ["block", "pass"]
    assert status["decisions"][0]["detectors"]
    assert [sum(slot.get(one, 0) for slot in status["slots"]) for one in ("pass", "block")] == [
        1,
        1,
    ]
    assert {row["stage"] for row in status["stages"]} >= {"queue", "graph", "total"}
    main, strict = status["bundles"]
    assert (main["texts"], main["rate"], strict["rate"]) == (1, 0.0, 1.0)
    assert (main["alarm"], len(main["interval"])) == (pytest.approx(2000), 2)
    assert status["queue"] == {
        "texts": 0, "most_texts": 1024, "tokens": 0, "most_tokens": 1 << 20
    }  # fmt: skip


def test_a_text_that_is_tried_is_no_traffic(make_service: Make, connected: Connected) -> None:
    """It has a verdict, and neither the monitors nor the decisions count it."""
    tried, response = _asked(
        make_service(),
        connected,
        ("POST", "/page/check", {"json": {"prompt": "the garden", "bundle": "strict"}}),
        _STATUS,
    )
    assert tried.json()["blocked"]
    assert tried.json()["readings"]
    status = response.json()
    assert [bundle["texts"] for bundle in status["bundles"]] == [0, 0]
    assert status["decisions"] == []
    assert {row["stage"] for row in status["stages"]} <= {"queue"}


@pytest.mark.parametrize("body", [{}, {"prompt": 3}, {"prompt": "a", "bundle": "none"}, {"x": 1}])
def test_a_wrong_body_is_refused(
    make_service: Make, connected: Connected, body: dict[str, Any]
) -> None:
    """As by the native contract."""
    (response,) = _asked(make_service(), connected, ("POST", "/page/check", {"json": body}))
    assert response.status_code == 400
    assert response.json()["error"]["message"]


def test_figures_and_checks_need_a_key_and_the_files_do_not(
    make_service: Make, connected: Connected, tmp_path: Path
) -> None:
    """The page can so ask for one."""
    (tmp_path / "keys").write_text("first\n", encoding="utf-8")
    page, closed, tried, opened = _asked(
        make_service(http=HttpConfig(keys_file=str(tmp_path / "keys"))),
        connected,
        ("GET", "/", {}),
        _STATUS,
        ("POST", "/page/check", {"json": {"prompt": "a"}}),
        ("GET", "/page/status.json", {"headers": {"x-api-key": "first"}}),
    )
    found = [response.status_code for response in (page, closed, tried, opened)]
    assert found == [200, 401, 401, 200]


def test_an_operator_can_turn_the_page_off(make_service: Make, connected: Connected) -> None:
    """Then there is nothing at ``/``."""
    calls = (("GET", "/", {}), _STATUS, ("POST", "/page/check", {"json": {"prompt": "a"}}))
    found = _asked(make_service(http=HttpConfig(page="off")), connected, *calls)
    assert {response.status_code for response in found} == {404}
