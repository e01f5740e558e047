"""The server as an application of Ray Serve: the same contracts, scheduler, modes and metrics.

Each replica has a service of its own, with its bundles, queue and open answers, as each process of
``layerguard serve`` has. Ray Serve listens, starts the replicas and ends them.
"""

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from layerguard.runtime.cli.serve import named_bundles
from layerguard.runtime.errors import InputError, MachineError
from layerguard.runtime.server.app import create_app
from layerguard.runtime.server.config import Config, HttpConfig
from layerguard.runtime.server.run import SWITCH_S
from layerguard.runtime.server.service import Service
from layerguard.runtime.server.settings import read_config, settings
from layerguard.scale.ray.exposition import joined
from layerguard.scale.ray.forwarding import Answered, Forwarded, Forwarding, answer

try:
    from ray import serve
    from ray.exceptions import RayError
    from ray.serve.config import RequestRouterConfig
    from ray.serve.exceptions import RayServeException
except ImportError as error:
    raise ImportError(
        "layerguard.scale.ray needs Ray Serve; run: pip install 'layerguard[ray]'"
    ) from error

NAME = "LayerGuard"
"""Of the deployment."""

_ROUTER = "layerguard.scale.ray.router.CallRouter"
_GONE = (RayError, RayServeException, TimeoutError)
"""Errors of a replica that cannot answer; the guard's own errors are responses."""

_ACTOR_OPTIONS: Sequence[str] = ("num_cpus", "num_gpus")
"""Of a replica, that ``build`` takes."""

_SESSION = os.environ.get("RAY_SERVE_SESSION_ID_HEADER_KEY", "x-session-id")
_METRICS_S = 5.0
"""Seconds that the replicas have to give their metrics."""


def application(
    config: Config | str | Path,
    *,
    num_replicas: int | str = 1,
    ray_actor_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> Any:
    """The server as an application that ``serve.run`` takes.

    Args:
        config: settings, or the TOML file of ``layerguard serve``. Bundles and files are the same
            on every node.
        num_replicas: replicas, or ``auto``.
        ray_actor_options: of each replica, such as ``{"num_cpus": 2}``.
        options: further options of ``serve.deployment``.

    Raises:
        InputError: the settings are wrong, or are Ray Serve's own to make.
    """
    settled = _settled(config if isinstance(config, Config) else read_config(Path(config), {}, {}))
    deployment = serve.deployment(
        Replica,
        **{
            "name": NAME,
            "num_replicas": num_replicas,
            "ray_actor_options": dict(ray_actor_options or {}),
            # requests and, beside them, those that other replicas forward
            "max_ongoing_requests": 2 * settled.http.connections,
            "max_queued_requests": settled.http.connections,
            "graceful_shutdown_timeout_s": settled.http.drain_s,
            "request_router_config": RequestRouterConfig(request_router_class=_ROUTER),
            **options,
        },
    )
    return deployment.bind(settled)


def build(arguments: Mapping[str, Any]) -> Any:
    """The same from arguments of ``serve run`` or of a configuration file of Ray Serve.

    Args:
        arguments: ``bundle``, a bundle or ``NAME=BUNDLE``; ``config``, a TOML file; any setting of
            ``layerguard serve`` by its name; ``num_replicas``, ``num_cpus`` and ``num_gpus``.

    Raises:
        InputError: as ``application``, or an argument has no meaning.
    """
    given = {name: str(value) for name, value in arguments.items()}
    bundle, path = given.pop("bundle", None), given.pop("config", None)
    replicas = given.pop("num_replicas", "1")
    actor = {name: _number(name, given.pop(name)) for name in _ACTOR_OPTIONS if name in given}
    known = [setting.name for setting in settings()]
    unknown = sorted(given.keys() - set(known))
    if unknown:
        raise InputError(
            f"found {', '.join(unknown)}; expected bundle, config, num_replicas, num_cpus, "
            f"num_gpus, or one of {', '.join(known)}"
        )
    bundles = named_bundles([bundle] if bundle else [])
    config = read_config(Path(path) if path else None, given, bundles)
    count = int(replicas) if replicas.isdecimal() else replicas
    if count != "auto" and (isinstance(count, str) or count < 1):
        raise InputError(f"num_replicas: found {replicas}; expected a number above 0, or auto")
    return application(config, num_replicas=count, ray_actor_options=actor)


@serve.ingress()
class Replica:
    """One replica: a service, and its application.

    Attributes:
        service: what answers.
    """

    async def __init__(self, config: Config) -> None:  # type: ignore[misc]  # Ray Serve awaits it
        """Load the bundles.

        Raises:
            LayerGuardError: a bundle or a file cannot be used.
        """
        sys.setswitchinterval(SWITCH_S)
        self._name = serve.get_replica_context().replica_tag
        if config.audit.audit_file:  # each replica has its own chain
            file = f"{config.audit.audit_file}.{self._name}"
            config = replace(config, audit=replace(config.audit, audit_file=file))
        self._config = config
        self._handle: Any = None
        self.service = Service(config)
        await self.service.reload()
        self._tending = asyncio.create_task(self.service.tend())

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """What Ray Serve calls for the application."""
        metrics = Route("/metrics", self._all_metrics, methods=["GET"])
        self._own = Starlette(routes=[metrics, Mount("", create_app(self.service))])
        app = Forwarding(self._own, self._config.http, self._from_owner, _GONE, _SESSION)
        return _without_request_id(app)

    async def answer(self, request: Forwarded) -> Answered:
        """Answer a request that another replica got, and whose call this one owns."""
        return await answer(self._own, request)

    async def metrics(self) -> tuple[str, str]:
        """The name of the replica, and its metrics in Prometheus' text format."""
        return self._name, self.service.metrics.text().decode()

    async def check_health(self) -> None:
        """What Ray Serve calls to see whether the replica is well.

        Raises:
            MachineError: it has no bundle.
        """
        if not self.service.ready:
            raise MachineError("the replica is not ready; expected its bundles to be loaded")

    async def __del__(self) -> None:
        """End as ``layerguard serve`` does; Ray Serve waits for the requests before."""
        if hasattr(self, "_tending"):
            self._tending.cancel()
            await self.service.drain()

    @property
    def _replicas(self) -> Any:
        """A handle of all replicas."""
        if self._handle is None:
            context = serve.get_replica_context()
            self._handle = serve.get_deployment_handle(context.deployment, context.app_name)
        return self._handle

    async def _from_owner(self, key: str, request: Forwarded) -> Answered:
        """The answer of the replica that owns a call."""
        response = self._replicas.options(session_id=key, method_name="answer").remote(request)
        try:
            answered: Answered = await response
        except asyncio.CancelledError:
            response.cancel()
            raise
        return answered

    async def _all_metrics(self, request: HttpRequest) -> Response:
        """The metrics of all replicas: a client does not choose which one it asks."""
        del request
        found = await self._replicas.broadcast("metrics").results_async(
            timeout_s=_METRICS_S, return_exceptions=True
        )
        texts = dict(one for one in found if not isinstance(one, BaseException))
        return PlainTextResponse(
            joined(texts), media_type="text/plain; version=0.0.4; charset=utf-8"
        )


def _without_request_id(app: ASGIApp) -> ASGIApp:
    """An application without the header ``x-request-id``, which Ray Serve's proxy also adds.

    Both have the same value: the proxy passes on the id that it was given or made.
    """

    async def answer_without(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_without(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [pair for pair in message["headers"] if pair[0] != b"x-request-id"]
                message = {**message, "headers": headers}
            await send(message)

        await app(scope, receive, send_without)

    return answer_without


def _settled(config: Config) -> Config:
    """The settings with paths that do not depend on the working folder.

    Raises:
        InputError: some settings are Ray Serve's to make.
    """
    http, default = config.http, HttpConfig()
    own = {
        "http.processes": (http.processes, 1, "num_replicas"),
        "http.tls_certificate": (http.tls_certificate, "", "TLS before Ray Serve's proxy"),
        "http.admin_keys_file": (http.admin_keys_file, "", "serve.run again, to load bundles"),
        "contracts.extproc_port": (config.contracts.extproc_port, 0, "layerguard serve for Envoy"),
        "http.host": (http.host, default.host, "serve.start(http_options=...)"),
        "http.port": (http.port, default.port, "serve.start(http_options=...)"),
    }
    faults = [
        f"{name}: found {value!r}; expected {plain!r} under Ray Serve: use {instead}"
        for name, (value, plain, instead) in own.items()
        if value != plain
    ]
    if faults:
        raise InputError("; ".join(faults))
    return replace(
        config,
        bundles={
            name: str(Path(where).resolve()) if Path(where).is_dir() else where
            for name, where in config.bundles.items()
        },
        http=replace(http, keys_file=_absolute(http.keys_file)),
        guard=replace(config.guard, verify=_absolute(config.guard.verify)),
        audit=replace(
            config.audit,
            audit_file=_absolute(config.audit.audit_file),
            audit_key_file=_absolute(config.audit.audit_key_file),
        ),
    )


def _absolute(path: str) -> str:
    return str(Path(path).absolute()) if path else ""


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InputError(f"{name}: found {text!r}; expected a number") from error
