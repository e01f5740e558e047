"""Calls of contracts, in one event loop."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from layerguard.runtime.server.service import Service
from tests.runtime.server.conftest import Connected

Post = Callable[..., list[Any]]


@pytest.fixture
def post(make_service: Callable[..., Service], connected: Connected) -> Post:
    """Posts bodies to a path, in turn, and gives the responses.

    A body is the arguments of ``httpx``, or the object to send as JSON. ``strict`` asks the bundle
    that flags everything, by the header that a gateway would send.
    """

    def run(
        path: str,
        *bodies: Any,
        strict: bool = False,
        service: Service | None = None,
        load: bool = True,
    ) -> list[httpx.Response]:
        served = service or make_service()
        headers = {"x-layerguard-bundle": "strict"} if strict else {}

        async def whole() -> list[httpx.Response]:
            async with connected(served) as client:
                if load:
                    await served.reload()
                calls = [
                    b if isinstance(b, dict) and b.keys() <= _SENT else {"json": b} for b in bodies
                ]
                return [
                    await client.post(
                        path, **{**call, "headers": headers | call.get("headers", {})}
                    )
                    for call in calls
                ]

        return asyncio.run(whole())

    return run


_SENT = {"content", "json", "headers"}
