"""The Open Inference Protocol, version 2, over HTTP: ``/v2``, as Triton and KServe speak it.

A model is a bundle. Its input ``text`` is a tensor of texts (BYTES). Its outputs have one value for
each text: ``score`` (FP32), at least 0.5 exactly if the text is blocked, ``blocked`` (BOOL) and
``reason`` (BYTES).
"""

from collections.abc import Iterator, Mapping, Sequence
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
from layerguard.runtime.server.contracts.tensors import (
    HEADER,
    Tensor,
    message,
    read_texts,
    split,
)
from layerguard.runtime.text.request import request

_OUTPUTS = {"score": "FP32", "blocked": "BOOL", "reason": "BYTES"}


async def server(call: Call) -> Response:
    """What the server is."""
    bundles = ", ".join(call.service.guards)
    return json_response(
        {"name": "layerguard", "version": bundles, "extensions": ["binary_tensor_data"]}
    )


async def live(call: Call) -> Response:  # noqa: ARG001  the process answers, whatever is asked
    """200 as long as the process answers."""
    return json_response({"live": True})


async def ready(call: Call) -> Response:
    """200 once the bundles, or the one that is named, are loaded."""
    if call.service.ready and (name := call.http.path_params.get("model")):
        call.service.named(name)
    return json_response({"ready": call.service.ready}, 200 if call.service.ready else 503)


async def model(call: Call) -> Response:
    """The inputs and outputs of a bundle."""
    name = call.http.path_params["model"]
    return json_response(
        {
            "name": name,
            "versions": [call.service.named(name)[1].bundle.id],
            "platform": "layerguard",
            "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
            "outputs": [
                {"name": output, "datatype": datatype, "shape": [-1]}
                for output, datatype in _OUTPUTS.items()
            ],
        }
    )


async def infer(call: Call) -> Response:
    """The outputs for a tensor of texts."""
    name = call.http.path_params["model"]
    version = call.service.named(name)[1].bundle.id
    if call.http.path_params.get("version", version) != version:
        raise InputError(f"version: found none of this id; expected {version}")
    body, binary = split(call.body, call.http.headers.get(HEADER))
    if not isinstance(body, dict):
        raise InputError(f"body: found {type(body).__name__}; expected an object")
    inputs = field(body, "inputs", list)
    if len(inputs) != 1 or not isinstance(inputs[0], dict) or inputs[0].get("name") != "text":
        raise InputError("inputs: expected exactly one tensor, named 'text'")
    answers = await call.check([request(t) for t in read_texts(inputs[0], binary)], bundle=name)
    values: dict[str, Sequence[Any]] = {
        "score": [answer.scores[""] for answer in answers],
        "blocked": [answer.blocked for answer in answers],
        "reason": [answer.reason for answer in answers],
    }
    head: dict[str, Any] = {"model_name": name, "model_version": version}
    if "id" in body:
        head["id"] = field(body, "id", str)
    text, packed = message(head, [(Tensor(o, _OUTPUTS[o], values[o]), b) for o, b in _asked(body)])
    if not packed:
        return Response(text, media_type="application/json")
    return Response(text + packed, 200, {HEADER: str(len(text))}, "application/octet-stream")


def error(fault: Fault) -> Response:
    """The protocol's error form."""
    return json_response({"error": fault.message}, fault.status)


def _asked(body: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """The names of the outputs that a call asks for, and whether each shall be binary."""
    all_binary = field(body, "parameters", dict, {}).get("binary_data_output", False)
    for output in field(body, "outputs", list, [{"name": name} for name in _OUTPUTS]):
        name = output.get("name") if isinstance(output, dict) else None
        if not isinstance(name, str) or name not in _OUTPUTS:
            raise InputError(f"outputs: expected names out of {', '.join(_OUTPUTS)}")
        yield name, bool(field(output, "parameters", dict, {}).get("binary_data", all_binary))


CONTRACT = Contract(
    "oip-v2",
    (
        Endpoint("GET", "/v2", server),
        Endpoint("GET", "/v2/health/live", live),
        Endpoint("GET", "/v2/health/ready", ready),
        *(
            endpoint
            for path in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")
            for endpoint in (
                Endpoint("GET", path, model),
                Endpoint("GET", f"{path}/ready", ready),
                Endpoint("POST", f"{path}/infer", infer),
            )
        ),
    ),
    error,
)
