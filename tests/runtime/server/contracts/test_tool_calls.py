"""Calls of tools in a model's answer are read, wherever a gateway puts them."""

import json
from typing import Any

import pytest

from layerguard.runtime.guard import Guard
from tests.runtime.server.contracts.conftest import Post

_CALL = {
    "id": "1",
    "type": "function",
    "function": {"name": "look", "arguments": '{"at": "boats"}'},
}

_MESSAGE = {"role": "assistant", "content": None, "tool_calls": [_CALL]}


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The contents of all requests that guards check, after their canaries."""
    contents: list[str] = []
    check = Guard.check_requests

    def watched(self: Guard, requests: Any, *arguments: Any, **named: Any) -> Any:
        contents.extend(text for one in requests for text in one.contents())
        return check(self, requests, *arguments, **named)

    monkeypatch.setattr(Guard, "check_requests", watched)
    return contents


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "/beta/litellm_basic_guardrail_api",
            {"input_type": "response", "litellm_call_id": "a", "texts": [], "tool_calls": [_CALL]},
        ),
        (
            "/beta/litellm_basic_guardrail_api",
            {"input_type": "response", "texts": ["the garden"], "tool_calls": [_CALL]},
        ),
        (
            "/response",
            {"body": {"choices": [{"message": {"role": "assistant", "tool_calls": [_CALL]}}]}},
        ),
        (
            "/portkey",
            {
                "eventType": "afterRequestHook",
                "request": {"text": "the garden"},
                "response": {"text": "", "json": {"choices": [{"message": _MESSAGE}]}},
            },
        ),
    ],
    ids=["litellm", "litellm without an id", "agentgateway", "portkey"],
)
def test_arguments_of_calls_are_read(post: Post, read: list[str], path: str, body: Any) -> None:
    """A harmful argument would reach the tool unread."""
    (response,) = post(path, body)
    assert response.status_code == 200
    assert any("look" in text and "boats" in text for text in read), json.dumps(read)
