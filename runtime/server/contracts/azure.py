"""Prompt Shields of Azure AI Content Safety: ``POST /contentsafety/text:shieldPrompt``."""

from http import HTTPStatus

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


async def shield(call: Call) -> Response:
    """Whether the user's prompt, and each document, holds an attack."""
    body = call.object()
    prompt = field(body, "userPrompt", str, "")
    documents = field(body, "documents", list, [])
    if not prompt and not documents:
        raise InputError("found no userPrompt and no documents; expected one of them")
    asked = [request(text) for text in ([prompt] if prompt else []) + documents]
    attacks = [{"attackDetected": one.blocked} for one in await call.check(asked)]
    of_prompt = attacks.pop(0) if prompt else {"attackDetected": False}
    return json_response({"userPromptAnalysis": of_prompt, "documentsAnalysis": attacks})


def error(fault: Fault) -> Response:
    """Azure's error form."""
    code = HTTPStatus(fault.status).phrase.replace(" ", "")
    return json_response({"error": {"code": code, "message": fault.message}}, fault.status)


CONTRACT = Contract(
    "azure-prompt-shields",
    (Endpoint("POST", "/contentsafety/text:shieldPrompt", shield),),
    error,
)
