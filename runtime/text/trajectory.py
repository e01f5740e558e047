"""The trajectory view: an agent's turns and tools in the format that Agent-SIREN was trained on.

The format is the published runtime's (llm-siren 0.2.0, artefacts whose task is "trajectory").
Nothing is cleaned, because the format itself is part of the signal. The tools are listed in the
system turn, so that an injection in a tool's description is visible.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from layerguard.runtime.errors import InputError
from layerguard.runtime.text.chat import arguments_of
from layerguard.runtime.text.request import Message, Request, check_text, text_of

Turn = dict[str, str]
"""``{"role": "system" | "user" | "assistant", "content": ...}``, as chat templates take it."""

_SYSTEM = ("system", "developer")
_TOOL = ("tool", "function", "environment")


def turns(request: Request) -> list[Turn]:
    """The turns of a request: at most one system turn, then alternating user and assistant turns.

    A request that is not a chat becomes one user turn, and its response one assistant turn.

    Raises:
        InputError: a role is unknown, or a tool call is malformed.
    """
    messages = request.messages or _plain(request)
    system = [text_of(message).strip() for message in messages if message["role"] in _SYSTEM]
    if request.tools:
        system.append(_tools_block(request.tools))
    rules = "\n\n".join(part for part in system if part)
    merged = [{"role": "system", "content": rules}] if rules else []
    for message in messages:
        for role, content in _contents(message):
            if merged and merged[-1]["role"] == role:
                merged[-1]["content"] = f"{merged[-1]['content']}\n{content}".strip()
            else:
                merged.append({"role": role, "content": content})
    return merged


def without_system(turns: Sequence[Turn]) -> list[Turn]:
    """The turns for a template without system turns: the first user turn takes its content."""
    if not turns or turns[0]["role"] != "system":
        return list(turns)
    rules, rest = turns[0]["content"], list(turns[1:])
    for place, turn in enumerate(rest):
        if turn["role"] == "user":
            rest[place] = {"role": "user", "content": f"{rules}\n\n{turn['content']}"}
            return rest
    return [{"role": "user", "content": rules}, *rest]


def _plain(request: Request) -> tuple[Message, ...]:
    texts = [("user", request.prompt), ("assistant", request.response)]
    return tuple({"role": role, "content": text} for role, text in texts if text is not None)


def _contents(message: Message) -> Iterator[tuple[str, str]]:
    """The role and content that a message adds after the system turn; nothing for a system turn."""
    role, content = message["role"], text_of(message)
    if role == "user":
        yield "user", content
    elif role == "assistant":
        calls = message.get("tool_calls")
        if not calls:
            yield "assistant", content
        elif isinstance(calls, Sequence) and not isinstance(calls, str):
            thought = [f"Thought: {content.strip()}"] if content else []
            yield "assistant", "\n".join([*thought, *map(_action, calls)])
        else:
            raise InputError(f"tool_calls: found {type(calls).__name__}; expected a list of calls")
    elif role in _TOOL:
        yield "user", f"[Observation] {content}"
    elif role not in _SYSTEM:
        known = ", ".join(("user", "assistant", *_SYSTEM, *_TOOL))
        raise InputError(f"message of role {role[:40]!r}: expected one of {known}")


def _action(call: Any) -> str:
    """One tool call as JSON; arguments that are a JSON string are parsed first."""
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        raise InputError(
            f"tool_calls: found {type(call).__name__}; expected objects such as "
            '{"function": {"name": ..., "arguments": ...}}'
        )
    named = {"name": function.get("name"), "arguments": arguments_of(function)}
    action = json.dumps(named, ensure_ascii=False, default=str)
    check_text("tool_calls", action)
    return f"Action: {action}"


def _tools_block(tools: Sequence[Mapping[str, Any]]) -> str:
    """The agent's tools, each with its parameters."""
    return "\n".join(["# Available tools", *map(_tool, tools)])


def _tool(tool: Mapping[str, Any]) -> str:
    function = tool.get("function")
    schema = function if isinstance(function, Mapping) else tool
    lines = [f"- {schema.get('name', '?')}: {_words(schema.get('description'))}"]
    if schema.get("prototype"):
        lines.append(f"  signature: {schema['prototype']}")
    parameters = schema.get("parameters")
    if isinstance(parameters, Mapping):
        properties = parameters.get("properties")
        named = properties if isinstance(properties, Mapping) else parameters
        listed = [_parameter(n, spec) for n, spec in named.items() if isinstance(spec, Mapping)]
        lines += ["  parameters:", *listed] if listed else []
    return "\n".join(lines)


def _parameter(name: str, spec: Mapping[str, Any]) -> str:
    """One line: name, and type, default and description if they are given."""
    facts = [str(spec["type"])] if spec.get("type") else []
    if spec.get("default") is not None:
        facts.append(f"default {spec['default']!r}")
    line = f"  - {name}" + (f" ({', '.join(facts)})" if facts else "")
    description = _words(spec.get("description"))
    return f"{line}: {description}" if description else line


def _words(value: Any) -> str:
    return str(value or "").strip()
