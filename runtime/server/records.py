"""What is kept of an answer: everything but the text."""

import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from layerguard.runtime.server.answers import Answer
from layerguard.runtime.types import json_ready

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""Id of the HTTP request that is being answered; empty outside of one."""


@dataclass(frozen=True, slots=True)
class Record:
    """One answer.

    Attributes:
        time: when it was given: seconds since 1970, UTC.
        request_id: of the HTTP request; see ``REQUEST_ID``.
        contract: name of the contract.
        direction: ``request`` or ``response``.
        bundle: name of the bundle.
        bundle_id: id of the bundle; empty if there is no verdict.
        settings: hash of the operator's settings of the guard.
        decision: ``block``, ``flag``, ``pass`` or ``unchecked``.
        mode: of the route.
        status: of the verdict; empty if there is none.
        domain: whose thresholds were used; None for those of all traffic.
        scores: by detector.
        thresholds: by detector.
        p_values: by detector, and of the whole guard under the key "".
        tokens: of the longest view; 0 without a verdict.
        truncated: whether a part of the text was not read.
        latency_ms: since the service was asked.
    """

    time: float
    request_id: str
    contract: str
    direction: str
    bundle: str
    bundle_id: str
    settings: str
    decision: str
    mode: str
    status: str
    domain: str | None
    scores: Mapping[str, float]
    thresholds: Mapping[str, float]
    p_values: Mapping[str, float | None]
    tokens: int
    truncated: bool
    latency_ms: float

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; the time as ISO 8601, and numbers that are not finite as None."""
        moment = datetime.fromtimestamp(self.time, UTC).isoformat(timespec="milliseconds")
        return {**json_ready(self), "time": moment}


def record(
    answer: Answer, contract: str, direction: str, settings: str, latency_ms: float
) -> Record:
    """The record of an answer that is being given now; see ``Record`` for the arguments."""
    verdict = answer.verdict
    readings = verdict.readings if verdict else {}
    p_values = {name: one.p_value for name, one in readings.items()}
    return Record(
        time=time.time(),
        request_id=REQUEST_ID.get(),
        contract=contract,
        direction=direction,
        bundle=answer.bundle,
        bundle_id=verdict.bundle_id if verdict else "",
        settings=settings,
        decision=answer.decision,
        mode=answer.mode,
        status=verdict.status if verdict else "",
        domain=verdict.domain if verdict else None,
        scores={name: one.score for name, one in readings.items()},
        thresholds={name: one.threshold for name, one in readings.items()},
        p_values={"": verdict.p_value, **p_values} if verdict else {},
        tokens=verdict.tokens if verdict else 0,
        truncated=verdict.truncated if verdict else False,
        latency_ms=round(latency_ms, 3),
    )
