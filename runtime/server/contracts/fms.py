"""The detector API of FMS Guardrails and TrustyAI: ``POST /api/v1/text/contents``.

Every content of a call has a list of detections: none if it may pass, else one of type
``layerguard`` for the whole guard, and one for each detector that blocks it.
"""

from starlette.responses import Response

from layerguard.runtime.server.contracts.contract import (
    Call,
    Contract,
    Endpoint,
    Fault,
    field,
    json_response,
    texts,
)
from layerguard.runtime.server.contracts.found import findings
from layerguard.runtime.text.request import request


async def contents(call: Call) -> Response:
    """The detections of each content whose score is at least ``detector_params.threshold``."""
    body = call.object()
    contents = texts(body, "contents")
    threshold = field(field(body, "detector_params", dict, {}), "threshold", float, 0.0)
    bundle = call.bundle(call.http.headers.get("detector-id"))
    answers = await call.check([request(content) for content in contents], bundle=bundle)
    return json_response(
        [
            [
                {
                    "start": one.start,
                    "end": one.end,
                    "text": content[one.start : one.end],
                    "detection": "flagged",
                    "detection_type": one.type,
                    "score": one.score,
                    "evidences": [],
                    "metadata": {"reason": answer.reason},
                }
                for one in findings(answer, content)
                if one.score >= threshold
            ]
            for content, answer in zip(contents, answers, strict=True)
        ]
    )


def error(fault: Fault) -> Response:
    """The detector API's error form."""
    return json_response({"code": fault.status, "message": fault.message}, fault.status)


CONTRACT = Contract("fms", (Endpoint("POST", "/api/v1/text/contents", contents),), error)
