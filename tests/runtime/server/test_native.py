"""``/v1/check`` and ``/v1/bundles``: what they answer, and the form of their errors."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from layerguard.runtime import InputError
from layerguard.runtime.guard import Guard
from layerguard.runtime.server.config import HttpConfig
from layerguard.runtime.server.contracts.contract import field
from layerguard.runtime.server.service import Service
from tests.runtime.server.conftest import Connected

Make = Callable[..., Service]


def _posted(service: Service, connected: Connected, *bodies: Any) -> list[httpx.Response]:
    async def whole() -> list[httpx.Response]:
        async with connected(service) as client:
            await service.reload()
            contents = [json.dumps(body) for body in bodies]  # ASCII, which keeps lone surrogates
            return [await client.post("/v1/check", content=content) for content in contents]

    return asyncio.run(whole())


def test_a_check_gives_the_guards_verdict(
    make_service: Make, connected: Connected, guard: Guard
) -> None:
    """The same readings, with the bundle's id and name, and what to do."""
    (response,) = _posted(make_service(), connected, {"text": "the garden was quiet"})
    found, expected = response.json(), guard.check("the garden was quiet").to_json()
    assert response.status_code == 200
    assert found["readings"] == expected["readings"]
    assert found["bundle_id"] == guard.bundle.id
    assert {"blocked": False, "mode": "enforce", "bundle": "main"}.items() <= found.items()
    assert found["timings_ms"].keys() >= {"tokenize", "graph", "score", "total"}


@pytest.mark.parametrize(
    "body",
    [
        {"text": "the garden"},
        {"prompt": "the garden", "response": "was quiet"},
        {"messages": [{"role": "user", "content": "the garden"}], "tools": None},
    ],
)
def test_all_forms_of_a_request_are_read(
    make_service: Make, connected: Connected, guard: Guard, body: dict[str, Any]
) -> None:
    """A text, a prompt with its response, a chat; null is absent."""
    (response,) = _posted(make_service(), connected, body)
    given = {name: value for name, value in body.items() if value is not None}
    assert response.json()["readings"] == guard.check(**given).to_json()["readings"]


def test_many_requests_are_answered_in_order(
    make_service: Make, connected: Connected, guard: Guard
) -> None:
    """One result each."""
    texts = ["the garden", "rain came over low hills", "a"]
    (response,) = _posted(
        make_service(), connected, {"requests": [{"text": text} for text in texts]}
    )
    tokens = [result["tokens"] for result in response.json()["results"]]
    assert tokens == [guard.check(text).tokens for text in texts]


def test_a_request_chooses_its_bundle(make_service: Make, connected: Connected) -> None:
    """Without a name, the first bundle answers."""
    first, strict, wrong = _posted(
        make_service(),
        connected,
        {"text": "a"},
        {"text": "a", "bundle": "strict"},
        {"text": "a", "bundle": "none"},
    )
    assert (first.json()["bundle"], first.json()["blocked"]) == ("main", False)
    assert (strict.json()["bundle"], strict.json()["blocked"]) == ("strict", True)
    assert wrong.status_code == 400
    assert "found 'none'; expected one of main, strict" in wrong.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ([], "body: found list; expected an object"),
        ({}, "expected exactly one of text, prompt, messages"),
        ({"text": 1}, "text: found int"),
        ({"txt": "a"}, "found 'txt'; expected only text, prompt"),
        ({"text": "a", "domain": 1}, "domain: found int; expected a text"),
        ({"text": "a", "deadline_ms": 0}, "deadline_ms: found 0; expected more than 0"),
        ({"text": "a", "deadline_ms": True}, "deadline_ms: found bool; expected a number"),
        ({"requests": []}, "requests: expected at least one"),
        ({"requests": [{"text": "a"}], "text": "b"}, "no other request beside them"),
        ({"requests": [{"text": "a"}, 1]}, "requests[1]: found int; expected an object"),
        ({"requests": [{"text": "a"}, {"text": 1}]}, "requests[1]: text: found int"),
        ({"text": "\ud800"}, "a lone surrogate"),
    ],
)
def test_a_wrong_body_is_answered_with_one_sentence(
    make_service: Make, connected: Connected, body: Any, said: str
) -> None:
    """400, in the contract's error form."""
    (response,) = _posted(make_service(), connected, body)
    assert response.status_code == 400
    assert response.json()["error"]["status"] == 400
    assert said in response.json()["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b'{"text": "a"} x'])
def test_a_body_that_is_no_json_is_answered_with_one_sentence(
    make_service: Make, connected: Connected, body: bytes
) -> None:
    """Whatever the bytes are, also very deep ones."""

    async def whole() -> httpx.Response:
        service = make_service()
        async with connected(service) as client:
            await service.reload()
            return await client.post("/v1/check", content=body)

    response = asyncio.run(whole())
    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith("body: found no JSON")


def test_a_large_body_is_refused(make_service: Make, connected: Connected) -> None:
    """413, whether its length is announced or not."""
    service = make_service(http=HttpConfig(body_bytes=100))

    async def chunks() -> Any:
        for _ in range(5):
            yield b" " * 50

    async def whole() -> list[httpx.Response]:
        async with connected(service) as client:
            await service.reload()
            return [
                await client.post("/v1/check", json={"text": "a" * 200}),
                await client.post("/v1/check", content=chunks()),
                await client.post("/v1/check", json={"text": "a"}),
            ]

    long, chunked, short = asyncio.run(whole())
    assert (long.status_code, chunked.status_code, short.status_code) == (413, 413, 200)
    assert "expected at most 100 bytes" in long.json()["error"]["message"]
    assert long.headers["connection"] == "close"


def test_the_bundles_are_listed(make_service: Make, connected: Connected, guard: Guard) -> None:
    """With their ids, their detectors and the operator's modes."""
    name = next(iter(guard.bundle.manifest.detectors))
    service = make_service({"detector_modes": {name: "shadow"}})

    async def whole() -> Any:
        async with connected(service) as client:
            await service.reload()
            return (await client.get("/v1/bundles")).json()["bundles"]

    main, strict = asyncio.run(whole())
    assert (main["name"], main["id"]) == ("main", guard.bundle.id)
    assert strict["name"] == "strict"
    modes = {detector: facts["mode"] for detector, facts in main["detectors"].items()}
    assert modes.pop(name) == "shadow"
    assert set(modes.values()) == {"enforce"}


def test_a_whole_number_may_be_written_with_a_point() -> None:
    """JSON has one type of numbers; true and 3.5 are none of the whole ones."""
    found = field({"n": 3.0}, "n", int)
    assert (found, type(found)) == (3, int)
    for wrong in (3.5, True, float("inf")):
        with pytest.raises(InputError, match="expected a number"):
            field({"n": wrong}, "n", int)
