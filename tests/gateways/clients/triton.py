"""Triton's HTTP client against the guard. Runs in the clients' environment."""

import json
import sys
from importlib.metadata import version

import numpy as np
import tritonclient.http as triton

given = json.load(sys.stdin)
model = given["bundle"]


def blocked(texts: list[str], *, binary: bool, address: str = given["guard"]) -> list[bool]:
    """The output ``blocked`` of some texts, sent and received in binary or in JSON."""
    client = triton.InferenceServerClient(address.removeprefix("http://"))
    tensor = triton.InferInput("text", [len(texts)], "BYTES")
    tensor.set_data_from_numpy(np.array(texts, dtype=object), binary_data=binary)
    outputs = [
        triton.InferRequestedOutput(name, binary_data=binary) for name in ("blocked", "score")
    ]
    result = client.infer(model, [tensor], outputs=outputs, request_id="1")
    found = result.as_numpy("blocked").tolist()
    assert found == (result.as_numpy("score") >= 0.5).tolist()
    return found


def outcome(name: str, *, binary: bool) -> dict:
    """What the client does with one form of tensors."""
    faults = []
    try:
        blocked(["a text"], binary=binary, address=given["overloaded"])
        faults.append("an overloaded guard raised no error")
    except triton.InferenceServerException as error:
        overload = str(error.status())
    try:
        client = triton.InferenceServerClient(given["guard"].removeprefix("http://"))
        client.infer(
            model,
            [
                triton.InferInput("text", [1], "FP32").set_data_from_numpy(
                    np.zeros(1, np.float32), binary_data=binary
                )
            ],
        )
        faults.append("a tensor of numbers raised no error")
    except triton.InferenceServerException as error:
        form = str(error)
        if "expected BYTES" not in form:
            faults.append(f"the error says {form!r}")
    return {
        "client": f"tritonclient, {name}",
        "version": version("tritonclient"),
        "blocked": blocked(given["block"], binary=binary),
        "passed": [not one for one in blocked(given["passes"], binary=binary)],
        "overload": overload,
        "error": "400, InferenceServerException",
        "faults": faults,
    }


server = triton.InferenceServerClient(given["guard"].removeprefix("http://"))
assert server.is_server_live()
assert server.is_server_ready()
assert server.is_model_ready(model)
assert server.get_server_metadata()["name"] == "layerguard"
assert server.get_model_metadata(model)["inputs"][0]["datatype"] == "BYTES"
print(json.dumps([outcome("binary", binary=True), outcome("JSON", binary=False)]))
