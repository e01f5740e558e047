"""The OpenAPI document: it is valid, and what it says is what the server takes and gives."""

import asyncio
import re
from collections.abc import Callable
from typing import Any

import httpx
import jsonschema
import pytest

from layerguard.runtime.server.contracts import CONTRACTS
from layerguard.runtime.server.service import Service
from tests.runtime.server.conftest import Connected

Make = Callable[..., Service]
_CHAT = [{"role": "user", "content": [{"type": "text", "text": "a"}]}]
_GOOD: list[dict[str, Any]] = [
    {"text": "a"},
    {"text": "", "domain": "b", "bundle": "strict", "deadline_ms": 5000},
    {"prompt": "a", "response": None, "text": None, "requests": None},
    {"prompt": "a", "response": "b"},
    {"messages": _CHAT, "tools": [{"name": "a"}]},
    {"messages": [{"role": "user"}]},
    {"requests": [{"text": "a"}, {"messages": _CHAT}], "domain": None},
]
_BAD: list[Any] = [
    {},
    [],
    {"text": 1},
    {"text": None},
    {"text": "a", "prompt": "b"},
    {"text": "a", "what": 1},
    {"text": "a", "tools": []},
    {"text": "a", "bundle": "none"},
    {"text": "a", "deadline_ms": 0},
    {"text": "a", "deadline_ms": True},
    {"messages": []},
    {"messages": [{"content": "a"}]},
    {"messages": [{"role": "user", "content": 1}]},
    {"requests": []},
    {"requests": [{"text": "a"}], "text": "a"},
]


def _asked(service: Service, connected: Connected, bodies: list[Any]) -> list[httpx.Response]:
    """The document, and the responses of ``/v1/check``."""

    async def whole() -> list[httpx.Response]:
        async with connected(service) as client:
            await service.reload()
            found = [await client.get("/openapi.json")]
            return found + [await client.post("/v1/check", json=body) for body in bodies]

    return asyncio.run(whole())


def _resolved(document: dict[str, Any], schema: Any) -> Any:
    return {**schema, "components": document["components"]}


def test_the_schemas_are_what_the_server_takes_and_gives(
    make_service: Make, connected: Connected
) -> None:
    """A body is answered if and only if its schema holds; so does the schema of every answer."""
    found, *answers = _asked(make_service(), connected, _GOOD + _BAD)
    document = found.json()
    operation = document["paths"]["/v1/check"]["post"]
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    for sent, response in zip(_GOOD + _BAD, answers, strict=True):
        valid = jsonschema.Draft202012Validator(_resolved(document, body)).is_valid(sent)
        assert (response.status_code == 200) == valid, sent
        own = operation["responses"][str(response.status_code)]
        schema = own["content"]["application/json"]["schema"]
        jsonschema.validate(response.json(), _resolved(document, schema))
    assert [answer.status_code for answer in answers] == [200] * len(_GOOD) + [400] * len(_BAD)


def test_every_endpoint_of_the_native_contract_is_described(
    make_service: Make, connected: Connected
) -> None:
    """And every reference in the document leads somewhere."""
    (found,) = _asked(make_service(), connected, [])
    document = found.json()
    described = {path for path, item in document["paths"].items() for _ in item}
    assert described == {
        one.path for contract in CONTRACTS for one in contract.endpoints
        if contract.name.startswith("native")
    }  # fmt: skip
    names = re.findall(r'"#/components/schemas/(\w+)"', found.text)
    assert set(names) == document["components"]["schemas"].keys()
    assert document["components"]["schemas"]["Bundle"]["enum"] == ["main", "strict"]


def test_the_document_is_valid(make_service: Make, connected: Connected) -> None:
    """By the metaschema of JSON Schema; the document's own schema is not a package's."""
    (found,) = _asked(make_service(), connected, [])
    document = found.json()
    assert document["openapi"] == "3.1.0"
    for item in document["paths"].values():
        for operation in item.values():
            media = [*operation["responses"].values(), operation.get("requestBody", {})]
            for one in media:
                for content in one.get("content", {}).values():
                    jsonschema.Draft202012Validator.check_schema(content["schema"])
    with pytest.raises(jsonschema.SchemaError):  # the check can fail
        jsonschema.Draft202012Validator.check_schema({"type": "none"})
