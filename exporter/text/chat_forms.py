"""Which forms of chats a model's template takes, tried out in the runtime that will serve them."""

from collections.abc import Mapping
from typing import Any

from layerguard.runtime.errors import ExportError, InputError
from layerguard.runtime.text.request import request
from layerguard.runtime.text.template import Template

_WORD = "lighthouse"
_USER = {"role": "user", "content": f"Where is the {_WORD}?"}
_ANSWER = {"role": "assistant", "content": "On the hill."}
_CALL = {
    "id": "abcdef123",  # nine letters and digits: some templates insist
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
    """The forms of chats that a template refuses, and its words.

    Args:
        chat_template: jinja2 text.
        special_tokens: what it may name, such as ``bos_token``.

    Raises:
        ExportError: it cannot render even a lone user turn, or shows nothing of it.
    """
    try:
        template = Template("chat", chat_template, special_tokens, [])
        pieces = template.render(request(messages=[_USER]))
    except InputError as error:
        raise _unusable(_words(error)) from error
    if not any(_WORD in text for text, _ in pieces):
        raise _unusable("it gives nothing of what the user says")
    refused = {}
    for form, asked in _OPTIONAL.items():
        try:
            template.render(request(**asked))
        except InputError as error:
            refused[form] = _words(error)
    return refused


def _words(error: InputError) -> str:
    """What the template, or jinja2, said."""
    return str(error.__cause__ or error)


def _unusable(why: str) -> ExportError:
    return ExportError(
        f"the model's chat template does not render a lone user turn ({why}); expected a jinja2 "
        "template that the runtime can render. Correct it in the model's folder, or give the "
        "layout of prompts with --template and a text that has {prompt} in it"
    )
