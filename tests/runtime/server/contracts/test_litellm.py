"""LiteLLM's calls: what is read of them, and answers that are joined to their requests."""

from typing import Any

import pytest

from layerguard.runtime.guard import Guard
from layerguard.runtime.server.service import Service
from layerguard.runtime.streaming.stream import Stream
from layerguard.runtime.text.request import Request
from tests.runtime.server.contracts.conftest import Post

_PATH = "/beta/litellm_basic_guardrail_api"


def _request(call: str = "call-1", **changed: Any) -> dict[str, Any]:
    messages = [{"role": "system", "content": "be quiet"}, {"role": "user", "content": "a river"}]
    return {
        "input_type": "request",
        "litellm_call_id": call,
        "texts": ["be quiet", "a river"],
        "structured_messages": messages,
        **changed,
    }


def _response(*texts: str, call: str | None = "call-1") -> dict[str, Any]:
    return {
        "input_type": "response",
        "litellm_call_id": call,
        "texts": list(texts),
        "structured_messages": None,
    }


@pytest.fixture
def pushed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that streams read, as they arrive."""
    read: list[str] = []
    push = Stream.push

    def watched(self: Stream, text: str) -> Any:
        read.append(text)
        return push(self, text)

    monkeypatch.setattr(Stream, "push", watched)
    return read


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The requests for whose answers a stream was opened."""
    found: list[Any] = []
    stream = Guard.stream

    def watched(self: Guard, **given: Any) -> Any:
        found.append(given.get("messages") or given.get("prompt"))
        return stream(self, **given)

    monkeypatch.setattr(Guard, "stream", watched)
    return found


def test_each_callback_reads_only_what_is_new(
    post: Post, pushed: list[str], opened: list[Any]
) -> None:
    """LiteLLM sends all of the text so far; the answer is read after its own request."""
    words = ["the garden", " was quiet", " before", " rain came", " over low hills"]
    so_far = ["".join(words[: n + 1]) for n in range(len(words))]
    asked = _request()
    responses = post(_PATH, asked, *(_response(text) for text in so_far), _response(so_far[-1]))
    assert all(response.json() == {"action": "NONE"} for response in responses)
    assert pushed == words
    assert opened == [tuple(asked["structured_messages"])]


def test_calls_are_told_apart_by_their_ids(post: Post, opened: list[Any]) -> None:
    """Another call has another request; without a request the answer is read alone."""
    post(
        _PATH,
        _request("one", structured_messages=None, texts=["hills"]),
        _request("two", structured_messages=None, texts=["boats"]),
        _response("rain", call="one"),
        _response("rain", call="two"),
        _response("rain", call="three"),
    )
    assert opened == ["hills", "boats", ""]


def test_all_choices_are_read(post: Post, pushed: list[str]) -> None:
    """Whatever their number."""
    post(_PATH, _response("rain came", "the river"))
    assert pushed == ["rain came", "the river"]


def test_a_call_without_id_is_read_whole(post: Post, pushed: list[str]) -> None:
    """As a text of its own."""
    (response,) = post(_PATH, _response("rain came", call=None), strict=True)
    assert response.json()["action"] == "BLOCKED"
    assert pushed == []


def test_a_request_is_read_as_its_chat_or_else_by_its_texts(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chat with its tools; each text of an embedding."""
    read: list[Request] = []
    check = Service.check

    async def watched(self: Service, requests: Any, **more: Any) -> Any:
        read.extend(requests)
        return await check(self, requests, **more)

    monkeypatch.setattr(Service, "check", watched)
    tools = [{"type": "function", "function": {"name": "look"}}]
    post(_PATH, _request(tools=tools), _request(structured_messages=[], texts=["a", "river"]))
    post(_PATH, _request(texts=["a river", "hills"]))
    chat, *texts, unlike, _ = read
    assert unlike.prompt == "hills", "a text that is not in the chat is read too"
    assert chat.messages is not None
    assert [turn["role"] for turn in chat.messages] == ["system", "user"]
    assert chat.tools == tuple(tools)
    assert [one.prompt for one in texts] == ["a", "river"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"images": ["data:"]}, "a guard cannot read images"),
        ({"input_type": "answer"}, "expected 'request' or 'response'"),
        ({"texts": [1], "structured_messages": None}, "text: found int"),
        ({"texts": "a", "structured_messages": None}, "texts: found str; expected a list"),
        ({"structured_messages": [{"content": "a"}]}, "a role of type NoneType"),
    ],
)
def test_what_cannot_be_read_is_refused(post: Post, changed: dict[str, Any], said: str) -> None:
    """LiteLLM blocks for an error that says nothing of an unreachable guard."""
    (response,) = post(_PATH, _request(**changed))
    assert response.status_code == 400
    assert said in response.json()["blocked_reason"]


def test_a_block_gives_the_reason(post: Post) -> None:
    """Of the verdict."""
    (response,) = post(_PATH, _request(), strict=True)
    assert response.json()["action"] == "BLOCKED"
    assert "siren" in response.json()["blocked_reason"]
