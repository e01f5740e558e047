"""The Open Inference Protocol: metadata, tensors in JSON and in binary, and wrong ones."""

import asyncio
import json
import struct
from typing import Any

import pytest

from layerguard.runtime.guard import Guard
from layerguard.runtime.server.config import Config
from layerguard.runtime.server.service import Service
from tests.runtime.server.conftest import Connected
from tests.runtime.server.contracts.conftest import Post

_PATH = "/v2/models/main/infer"
_LENGTH = "inference-header-content-length"


def _input(*texts: str, **changed: Any) -> dict[str, Any]:
    tensor = {"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": list(texts)}
    return {"inputs": [tensor | changed]}


def _packed(*texts: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def _binary(part: bytes, **more: Any) -> dict[str, Any]:
    tensor = {"name": "text", "shape": [2], "datatype": "BYTES"}
    tensor["parameters"] = {"binary_data_size": len(part)}
    head = json.dumps({"inputs": [tensor], **more}).encode()
    return {"content": head + part, "headers": {_LENGTH: str(len(head))}}


def test_every_text_has_the_outputs_of_its_bundle(post: Post, guard: Guard) -> None:
    """With the call's id, the bundle's name and its id as the version."""
    (response,) = post("/v2/models/strict/infer", {"id": "7", **_input("a", "the river")})
    answer = response.json()
    assert (answer["id"], answer["model_name"]) == ("7", "strict")
    assert answer["model_version"] != guard.bundle.id
    score, blocked, reason = answer["outputs"]
    assert (score["name"], score["datatype"], score["shape"]) == ("score", "FP32", [2])
    assert all(value >= 0.5 for value in score["data"])
    assert (blocked["datatype"], blocked["data"]) == ("BOOL", [True, True])
    assert (reason["datatype"], len(reason["data"])) == ("BYTES", 2)


def test_binary_tensors_go_both_ways(post: Post) -> None:
    """As Triton's client sends them by default: a length of four bytes before each text."""
    part = _packed(b"a", "garten übermorgen".encode())
    (response,) = post(
        "/v2/models/strict/infer",
        _binary(
            part,
            outputs=[
                {"name": "blocked", "parameters": {"binary_data": True}},
                {"name": "score", "parameters": {"binary_data": True}},
                {"name": "reason"},
            ],
        ),
    )
    assert response.headers["content-type"] == "application/octet-stream"
    length = int(response.headers[_LENGTH])
    head, binary = json.loads(response.content[:length]), response.content[length:]
    assert [output.get("parameters") for output in head["outputs"]] == [
        {"binary_data_size": 2},
        {"binary_data_size": 8},
        None,
    ]
    assert binary[:2] == b"\1\1"
    assert all(score >= 0.5 for score in struct.unpack("<2f", binary[2:]))


def test_all_outputs_are_binary_if_asked(post: Post) -> None:
    """One parameter for the whole call; texts have their lengths before them."""
    (response,) = post(_PATH, {**_input("a"), "parameters": {"binary_data_output": True}})
    length = int(response.headers[_LENGTH])
    sizes = [
        output["parameters"]["binary_data_size"]
        for output in json.loads(response.content[:length])["outputs"]
    ]
    assert sum(sizes) == len(response.content) - length
    reason = response.content[-sizes[2] :]
    assert struct.unpack("<I", reason[:4]) == (len(reason) - 4,)


def test_rows_may_have_several_axes(post: Post) -> None:
    """They are read in row-major order."""
    (response,) = post(_PATH, _input(shape=[2, 1], data=[["a"], ["river"]]))
    assert response.json()["outputs"][0]["shape"] == [2]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"inputs": []}, "expected exactly one tensor, named 'text'"),
        (_input("a", name="prompt"), "expected exactly one tensor, named 'text'"),
        (_input("a", datatype="FP32"), "datatype: found 'FP32'; expected BYTES"),
        (_input("a", shape=[2]), "found 1 texts; expected 2"),
        (_input("a", shape=[-1]), "shape: found [-1]"),
        (_input(shape=[0]), "data: found no text, in the shape [0]"),
        (_input("a", shape=[2, 0], data=[]), "data: found no text, in the shape [2, 0]"),
        (_input("a", shape=[True]), "shape: found [True]"),
        (_input("a", data=[1]), "data: found int; expected texts"),
        ({**_input("a"), "outputs": [{"name": "logits"}]}, "expected names out of score, blocked"),
        ({**_input("a"), "outputs": ["score"]}, "expected names out of score, blocked"),
        ({**_input("a"), "id": 7}, "id: found int"),
        (_binary(_packed(b"a")), "found 1 texts; expected 2"),
        (_binary(b"\1\0\0"), "found a part of a length"),
        (_binary(b"\xff\xff\xff\xff"), "found fewer bytes than a text's length"),
        (_binary(_packed(b"a", b"\xff")), "expected UTF-8"),
        ({"content": b"{}", "headers": {_LENGTH: "3"}}, "in a body of 2 bytes"),
        ({"content": b"{}", "headers": {_LENGTH: "-1"}}, "in a body of 2 bytes"),
        ({"content": b"{}", "headers": {_LENGTH: "1"}}, "found no JSON"),
    ],
)
def test_a_wrong_tensor_is_answered_with_one_sentence(
    post: Post, body: dict[str, Any], said: str
) -> None:
    """In the protocol's error form."""
    (response,) = post(_PATH, body)
    assert response.status_code == 400
    assert said in response.json()["error"]


def test_metadata_and_health(connected: Connected, guard: Guard, sound: Any) -> None:
    """Before and after the bundles are loaded, of the server and of one bundle."""
    service = Service(Config({"main": str(sound)}))
    version = guard.bundle.id
    ready = ("/v2/health/ready", "/v2/models/main/ready", f"/v2/models/main/versions/{version}")

    async def whole() -> dict[str, Any]:
        async with connected(service) as client:
            assert (await client.get("/v2/health/live")).status_code == 200
            assert [(await client.get(path)).status_code for path in ready] == [503] * 3
            await service.reload()
            assert [(await client.get(path)).status_code for path in ready] == [200] * 3
            assert (await client.get("/v2/models/other/ready")).status_code == 400
            other = await client.post("/v2/models/main/versions/1/infer", json=_input("a"))
            assert f"expected {version}" in other.json()["error"]
            assert (await client.get("/v2")).json()["extensions"] == ["binary_tensor_data"]
            model: dict[str, Any] = (await client.get("/v2/models/main")).json()
            return model

    model = asyncio.run(whole())
    assert (model["name"], model["versions"]) == ("main", [version])
    assert [one["name"] for one in model["outputs"]] == ["score", "blocked", "reason"]
