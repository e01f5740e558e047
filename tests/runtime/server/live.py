"""A server on a port of this machine, in a thread of the test's own process."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from layerguard.runtime.server.app import create_app
from layerguard.runtime.server.service import Service


@contextmanager
def live(service: Service) -> Iterator[str]:
    """The address of a server of this service, which is loaded; it ends with the block."""
    started = threading.Event()
    server = _Server(
        uvicorn.Config(create_app(service), port=0, log_config=None, lifespan="off"), started
    )
    failures: list[BaseException] = []

    async def serve() -> None:
        await service.reload()
        await server.serve()
        await service.drain()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:  # noqa: BLE001  it is raised again, in the test's thread
            failures.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=run)
    thread.start()
    started.wait()
    try:
        if not failures:
            yield f"http://127.0.0.1:{_port(server)}/"
    finally:
        server.should_exit = True
        thread.join()
    if failures:
        raise failures[0]


class _Server(uvicorn.Server):
    """Says when it listens."""

    def __init__(self, config: uvicorn.Config, listens: threading.Event) -> None:
        super().__init__(config)
        self._listens = listens

    async def startup(self, sockets: Any = None) -> None:
        """Listen."""
        await super().startup(sockets)
        self._listens.set()


def _port(server: Any) -> int:
    port: int = server.servers[0].sockets[0].getsockname()[1]
    return port
