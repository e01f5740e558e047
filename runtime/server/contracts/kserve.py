"""KServe's V1 protocol: ``POST /v1/models/{model}:predict``.

A prediction has the probability of class ``1``, the text is blocked, and of ``0``, it may pass.
"""

from typing import Any

from starlette.responses import Response

from layerguard.runtime.errors import InputError
from layerguard.runtime.server.contracts.contract import (
    Call,
    Contract,
    Endpoint,
    Fault,
    field,
    json_response,
)
from layerguard.runtime.text.request import request


async def predict(call: Call) -> Response:
    """A prediction for each of the ``instances``: texts, or objects with a ``text``."""
    instances = field(call.object(), "instances", list)
    if not instances:
        raise InputError("instances: found none; expected at least one")
    requests = [request(_text(index, one)) for index, one in enumerate(instances)]
    answers = await call.check(requests, bundle=call.http.path_params["model"])
    scores = [answer.scores[""] for answer in answers]
    return json_response({"predictions": [{"0": 1 - score, "1": score} for score in scores]})


async def status(call: Call) -> Response:
    """Whether a bundle serves."""
    name = call.http.path_params["model"]
    call.service.named(name)
    return json_response({"name": name, "ready": True})


def error(fault: Fault) -> Response:
    """KServe's error form."""
    return json_response({"error": fault.message}, fault.status)


def _text(index: int, instance: Any) -> Any:
    value = instance.get("text") if isinstance(instance, dict) else instance
    if not isinstance(value, str):
        raise InputError(
            f"instances[{index}]: found {type(instance).__name__}; expected a text, or an object "
            "with a text"
        )
    return value


CONTRACT = Contract(
    "kserve-v1",
    (
        Endpoint("POST", "/v1/models/{model}:predict", predict),
        Endpoint("GET", "/v1/models/{model}", status),
    ),
    error,
)
