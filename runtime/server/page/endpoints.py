"""Serves the page: its files to everyone, and its figures and checks to clients with a key."""

from functools import partial
from importlib.resources import files
from typing import Any

from starlette.responses import Response

from layerguard.runtime.decision.betting import Bets
from layerguard.runtime.guard import Guard
from layerguard.runtime.server.contracts import native
from layerguard.runtime.server.contracts.contract import (
    Call,
    Contract,
    Endpoint,
    field,
    json_response,
)
from layerguard.runtime.server.recent import SLOT_S
from layerguard.runtime.types import json_ready

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}
"""Of each file of the page: it runs its own scripts only, and no other page may show it."""

_FOLDER = files("layerguard.runtime.server.page")
_TYPES = {"css": "text/css", "html": "text/html", "js": "text/javascript", "svg": "image/svg+xml"}
_FILES = ("page.css", "icon.svg", "page.js", "figures.js", "playground.js", "elements.js")
_CHECKED = ("text", "prompt", "response", "bundle")


def _file(name: str, path: str) -> Endpoint:
    content = (_FOLDER / name).read_bytes()
    kind = _TYPES[name.rpartition(".")[2]]

    async def send(call: Call) -> Response:  # noqa: ARG001  it is the same for every call
        return Response(content, headers=HEADERS, media_type=kind)

    return Endpoint("GET", path, send)


async def status(call: Call) -> Response:
    """The figures that the page shows, without any text."""
    service = call.service
    scheduler, recent = service.config.scheduler, service.metrics.recent
    texts, tokens = service.waiting
    figures = {
        "ready": service.ready,
        "queue": {
            "texts": texts,
            "most_texts": scheduler.queue_requests,
            "tokens": tokens,
            "most_tokens": scheduler.queue_tokens,
        },
        "streams": {"open": service.open_answers, "most": service.config.streams.streams},
        "bundles": [_bundle(name, guard) for name, guard in service.guards.items()],
        "slot_s": SLOT_S,
        "slots": recent.slots(),
        "stages": list(recent.stages()),
        "decisions": recent.decisions(),
    }
    return json_response(json_ready(figures), headers={"cache-control": "no-store"})


async def check(call: Call) -> Response:
    """The verdict on a text that a person typed; it is no traffic, so the monitors skip it."""
    body = call.object()
    native.known(body, _CHECKED)
    name, guard = call.service.named(field(body, "bundle", str, None))
    asked = native.parsed(body)
    (verdict,) = await call.service.run(partial(guard.check_requests, [asked], counted=False))
    judged = call.service.judged(name, guard, verdict, call.contract)
    return json_response(judged.to_json(), headers={"cache-control": "no-store"})


def _bundle(name: str, guard: Guard) -> dict[str, Any]:
    """What a bundle is, and how its traffic compares with what was calibrated."""
    manifest, monitor = guard.bundle.manifest, guard.monitor
    bets = [own.bets for own in list(monitor.sources.values())]
    bets += [own.bets for own in list(guard.traffic.sources.values())]
    nearest = max(bets, key=_nearness, default=Bets(1))
    return {
        "name": name,
        "id": guard.bundle.id,
        "model": manifest.model.id,
        "device": guard.backbone.session.device,
        "texts": monitor.n,
        "flagged": monitor.flagged,
        "rate": monitor.rate,
        "target": manifest.decision.target_fpr if manifest.decision else None,
        "interval": guard.decision.promised[None],
        "e_value": nearest.e_value,
        "alarm": nearest.alarm_at,
        "drifting": bool(monitor.drifting or guard.traffic.drifting),
    }


def _nearness(bets: Bets) -> float:
    """How near the bets of a source are to its alarm; sources after the first alarm later."""
    return bets.e_value / bets.alarm_at


FILES = Contract(
    "page-files",
    (_file("page.html", "/"), *(_file(name, f"/page/{name}") for name in _FILES)),
    native.error,
)
"""The files; they hold no data, so no key is asked for."""

FIGURES = Contract(
    "page",
    (Endpoint("GET", "/page/status.json", status), Endpoint("POST", "/page/check", check)),
    native.error,
)
"""What the files show, for clients with a key."""
