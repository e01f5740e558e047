"""Classifiers that NeMo Guardrails calls: its jailbreak rail's, NVIDIA's NIM, and vLLM's.

``POST /v1/classify`` with ``input`` and ``POST /model`` with ``prompt`` give ``jailbreak`` and a
``score``. ``POST /classify`` is both NIM's and vLLM's; vLLM's has a ``model``.

The jailbreak rail lets a text pass if it gets an error. Errors are therefore answered with 200 and
a positive result, in the forms of both.
"""

from typing import Any

from starlette.responses import Response

from layerguard.runtime.server.answers import Answer
from layerguard.runtime.server.contracts.contract import (
    Call,
    Contract,
    Endpoint,
    Fault,
    field,
    json_response,
    texts,
)
from layerguard.runtime.text.request import request

LABELS = ("pass", "layerguard")
"""Labels of a text that may pass, and of one that is blocked."""


async def nim(call: Call) -> Response:
    """NIM's classification of ``input``."""
    return await _jailbreak(call, field(call.object(), "input", str))


async def model(call: Call) -> Response:
    """The classification of ``prompt``."""
    return await _jailbreak(call, field(call.object(), "prompt", str))


async def classify(call: Call) -> Response:
    """The classes of one or more texts for vLLM's clients; NIM's if the call names no model."""
    body = call.object()
    name = field(body, "model", str, None)
    if name is None:
        return await nim(call)
    answers = await call.check(
        [request(text) for text in texts(body, "input")], bundle=call.bundle(name)
    )
    return json_response(
        {
            "object": "list",
            "model": name,
            "data": [
                _vllm(index, answer.blocked, answer.scores[""])
                for index, answer in enumerate(answers)
            ],
        }
    )


def error(fault: Fault) -> Response:
    """The error form: a positive result."""
    positive = {"jailbreak": True, "score": 1.0, "object": "list", "data": [_vllm(0, True, 1.0)]}
    return json_response(
        {**positive, "error": {"message": fault.message, "code": fault.status}}, 200
    )


async def _jailbreak(call: Call, text: str) -> Response:
    answer: Answer = (await call.check([request(text)]))[0]
    return json_response({"jailbreak": answer.blocked, "score": answer.scores[""]})


def _vllm(index: int, blocked: bool, score: float) -> dict[str, Any]:
    probs = [1 - score, score]
    return {"index": index, "label": LABELS[blocked], "probs": probs, "num_classes": len(probs)}


CONTRACT = Contract(
    "nemo",
    (
        Endpoint("POST", "/v1/classify", nim),
        Endpoint("POST", "/model", model),
        Endpoint("POST", "/classify", classify),
    ),
    error,
)
