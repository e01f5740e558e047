"""Test which forms of chats a model's chat template accepts, with the runtime's renderer."""

from collections.abc import Mapping
from typing import Any

from layerguard.runtime.errors import ExportError, InputError
from layerguard.runtime.text.request import request
from layerguard.runtime.text.template import Template

_WORD = "lighthouse"
_USER = {"role": "user", "content": f"Where is the {_WORD}?"}
_ANSWER = {"role": "assistant", "content": "On the hill."}
_CALL = {
    "id": "abcdef123",  # nine letters and digits, as some templates require
    "type": "function",
    "function": {"name": "find", "arguments": {"place": _WORD}},
}
_TOOL = {
    "type": "function",
    "function": {
        "name": "find",
        "description": "Find a place.",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string", "description": "its name"}},
            "required": ["place"],
        },
    },
}
_OPTIONAL: dict[str, dict[str, Any]] = {
    "a system turn": {"messages": [{"role": "system", "content": "Be brief."}, _USER]},
    "an earlier answer": {"messages": [_USER, _ANSWER, _USER]},
    "tools": {"messages": [_USER], "tools": [_TOOL]},
    "a tool call and its result": {
        "messages": [
            _USER,
            {"role": "assistant", "content": "", "tool_calls": [_CALL]},
            {
                "role": "tool",
                "name": "find",
                "tool_call_id": _CALL["id"],
                "content": '{"found": true}',
            },
        ],
        "tools": [_TOOL],
    },
}


def refused_forms(chat_template: str, special_tokens: Mapping[str, str]) -> dict[str, str]:
    """The forms of chats that a template refuses, with its error messages.

    Args:
        chat_template: jinja2 text.
        special_tokens: tokens by the names that it may use, such as ``bos_token``.

    Raises:
        ExportError: the template cannot render a single user turn, or leaves out its content.
    """
    try:
        template = Template("chat", chat_template, special_tokens, [])
        pieces = template.render(request(messages=[_USER]))
    except InputError as error:
        raise _unusable(_message(error)) from error
    if not any(_WORD in text for text, _ in pieces):
        raise _unusable("its output lacks the user's text")
    refused = {}
    for form, chat in _OPTIONAL.items():
        try:
            template.render(request(**chat))
        except InputError as error:
            refused[form] = _message(error)
    return refused


def _message(error: InputError) -> str:
    """The error message of the template or of jinja2."""
    return str(error.__cause__ or error)


def _unusable(reason: str) -> ExportError:
    return ExportError(
        f"the model's chat template does not render a single user turn ({reason}); expected a "
        "jinja2 template that the runtime can render. Correct it in the model's folder, or pass "
        "--template with a text that contains {prompt}"
    )
