"""Runs the server: the service and uvicorn in one event loop, and the signals.

SIGTERM and SIGINT stop it: it accepts no more connections, answers what it has, and ends. SIGHUP
loads the bundles again. Of several processes each has its own service, and a port of its own beside
the common one, so that its metrics can be read.
"""

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableSequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from importlib.util import find_spec

import uvicorn
import uvloop

from layerguard.runtime.errors import InputError, LayerGuardError, MachineError
from layerguard.runtime.extras import needing
from layerguard.runtime.server.app import create_app
from layerguard.runtime.server.config import Config, HttpConfig
from layerguard.runtime.server.processes import Supervisor
from layerguard.runtime.server.protocol import bounded_protocol
from layerguard.runtime.server.service import Service

_LOG = logging.getLogger("layerguard.server")
_KEEP_ALIVE_S = 75
"""Seconds before an idle connection is closed; gateways close theirs earlier, so none is closed
while a request is on its way."""

Beside = Callable[[], Awaitable[None]] | None
"""What else runs in the event loop."""

SWITCH_S = 0.0002
"""Seconds after which a thread that runs Python gives way; Python's own 5 ms make small checks wait
while a long text is read. ``tests/attacks/beside.py`` measures it."""


def serve(config: Config) -> int:
    """Serve until a signal ends it.

    The address is in use before the bundles are loaded; ``/readyz`` says when they are.

    Returns:
        The exit code: 0, or that of a process that could not serve.

    Raises:
        LayerGuardError: a bundle cannot be loaded, a file of keys or certificates cannot be read,
            or the address cannot be used.
    """
    _begin_log()
    with listening(config.http) as listener:
        if config.http.processes > 1:
            return Supervisor(config.http.processes, _serve_one, (config, listener)).run()
        _run(config, [listener])
        return 0


def _serve_one(
    config: Config, listener: socket.socket, counts: MutableSequence[int], number: int
) -> None:
    """Serve in one of several processes, also on its own port; ends with it as ``serve`` does."""
    _begin_log()
    os.setpgrp()  # Ctrl-C reaches the first process only, which passes SIGTERM on
    port = listener.getsockname()[1] + 1 + number
    audit = config.audit
    if audit.audit_file:  # each process has its own chain
        audit = replace(audit, audit_file=f"{audit.audit_file}.{number}")
    try:
        with listening(replace(config.http, port=port)) as own:
            _run(replace(config, audit=audit), [own, listener], partial(_count, counts, number))
    except LayerGuardError as error:
        _LOG.error("process %d: %s", number, error)
        sys.exit(error.exit_code)


def _begin_log() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("uvicorn.error").addFilter(_is_no_refusal)


def _is_no_refusal(record: logging.LogRecord) -> bool:
    """False for uvicorn's error after a WebSocket that was refused by an HTTP response."""
    return record.msg != "ASGI callable returned without completing handshake."


def _run(config: Config, listeners: list[socket.socket], beside: Beside = None) -> None:
    """Serve; ``beside`` runs in the same event loop."""
    sys.setswitchinterval(SWITCH_S)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(config, listeners, beside))


async def _serve(config: Config, listeners: list[socket.socket], beside: Beside) -> None:
    running = asyncio.ensure_future(beside()) if beside else None
    service = Service(config)
    async with _processing(service):
        await _answer(service, listeners)
    if running:
        running.cancel()


async def _count(counts: MutableSequence[int], number: int) -> None:
    """Count every second, for the supervisor: the event loop runs."""
    while True:
        counts[number] += 1
        await asyncio.sleep(1)


async def _answer(service: Service, listeners: list[socket.socket]) -> None:
    """Answer HTTP until a signal ends it."""
    server = _Server(_uvicorn_config(service))
    loop = asyncio.get_running_loop()
    host, port = listeners[0].getsockname()[:2]
    serving = asyncio.create_task(server.serve(sockets=listeners))
    loading = asyncio.create_task(_load(service, f"{host} port {port}"))
    tending = asyncio.create_task(service.tend())
    loop.add_signal_handler(signal.SIGHUP, lambda: asyncio.ensure_future(_reload(service)))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    parent = multiprocessing.parent_process()
    if parent is not None:  # a process without its parent would serve for ever
        loop.add_reader(parent.sentinel, server.stop_once)
    try:
        await asyncio.wait({serving, loading}, return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            loading.result()
        await serving
    finally:
        server.stop()
        await serving
        tending.cancel()
        await service.drain()


@asynccontextmanager
async def _processing(service: Service) -> AsyncIterator[None]:
    """Envoy's external processing, if the operator set a port for it."""
    http, port = service.config.http, service.config.contracts.extproc_port
    if not port:
        yield
        return
    with needing("extproc", "extproc_port"):
        from layerguard.runtime.server.extproc.processor import listen  # noqa: PLC0415
    processor = await listen(service, http.host, port, shares=http.processes > 1)
    try:
        yield
    finally:
        await processor.stop(http.drain_s)


class _Server(uvicorn.Server):
    """uvicorn's server, whose process ends with 0 after a signal."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the caller."""
        yield

    def stop_once(self) -> None:
        """Stop gracefully, however often asked."""
        self.should_exit = True

    def stop(self) -> None:
        """Stop gracefully; at once if asked twice."""
        self.force_exit = self.should_exit
        self.should_exit = True


@contextmanager
def listening(http: HttpConfig) -> Iterator[socket.socket]:
    """A socket that listens.

    Raises:
        MachineError: the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in http.host else socket.AF_INET
    try:
        listener = socket.create_server((http.host, http.port), family=family, backlog=2048)
    except OSError as error:
        raise MachineError(
            f"cannot listen on {http.host} port {http.port} ({error.strerror}); expected a free "
            "address of this machine: choose others with --host and --port"
        ) from error
    with listener:
        yield listener


def _uvicorn_config(service: Service) -> uvicorn.Config:
    http = service.config.http
    config = uvicorn.Config(
        create_app(service),
        http=bounded_protocol(http.header_bytes, http.read_s),
        ws="websockets-sansio" if find_spec("websockets") else "none",
        ws_max_size=http.body_bytes,
        ws_ping_timeout=None,  # a pong waits behind other messages; quiet clients have a deadline
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=http.connections,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(http.drain_s),
        ssl_certfile=http.tls_certificate or None,
        ssl_keyfile=http.tls_key or None,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise InputError(
            f"{http.tls_certificate} and {http.tls_key or 'no key'} cannot be used ({error}); "
            "expected a certificate chain and its private key, in PEM"
        ) from error
    return config


async def _load(service: Service, where: str) -> None:
    ids = await service.reload()
    _LOG.info("serving %s on %s", _listed(ids), where)


async def _reload(service: Service) -> None:
    try:
        _LOG.info("reloaded: %s", _listed(await service.reload()))
    except LayerGuardError as error:
        _LOG.error("not reloaded, the earlier bundles still serve: %s", error)


def _listed(ids: dict[str, str]) -> str:
    return ", ".join(f"{name} ({bundle_id})" for name, bundle_id in ids.items())
