"""A service over tiny bundles, and a client of its application."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from layerguard.runtime.server.app import create_app
from layerguard.runtime.server.config import Config, GuardConfig
from layerguard.runtime.server.service import Service

Connected = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@asynccontextmanager
async def _connected(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(service))
    async with httpx.AsyncClient(transport=transport, base_url="http://guard") as client:
        try:
            yield client
        finally:
            await service.drain()


@pytest.fixture
def connected() -> Connected:
    """Opens a client of a service's application, and drains the service at the end."""
    return _connected


@pytest.fixture
def make_service(sound: Path, strict: Path) -> Callable[..., Service]:
    """A service with a bundle that flags nothing, ``main``, and one that flags all, ``strict``."""

    def make(guard: dict[str, Any] | None = None, **sections: Any) -> Service:
        bundles = {"main": str(sound), "strict": str(strict)}
        return Service(Config(bundles, guard=GuardConfig(threads=1, **(guard or {})), **sections))

    return make
