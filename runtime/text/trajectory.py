"""The trajectory view: an agent's turns and tools in the words that Agent-SIREN was trained on.

Which turn says what is the published runtime's rule (llm-siren 0.2.0, artefacts whose task is
"trajectory"): the packaging is the signal here, so nothing is cleaned away. The tools stand in the
system turn, where an injection in a tool's description can be seen.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from layerguard.runtime.errors import InputError
from layerguard.runtime.text.chat import arguments_of
from layerguard.runtime.text.request import Message, Request, check_text, text_of

Turn = dict[str, str]
"""``{"role": "system" | "user" | "assistant", "content": ...}``: what every chat template takes."""

_SYSTEM = ("system", "developer")
_TOOL = ("tool", "function", "environment")


def turns(request: Request) -> list[Turn]:
    """The turns of a request: one of the system at most, then user and assistant in turn.

    A text that is no chat is one user turn; its response, one of the assistant.

    Raises:
        InputError: a role is unknown, or a tool call is not one.
    """
    messages = request.messages or _plain(request)
    system = [text_of(message).strip() for message in messages if message["role"] in _SYSTEM]
    if request.tools:
        system.append(_tools_block(request.tools))
    rules = "\n\n".join(part for part in system if part)
    found = [{"role": "system", "content": rules}] if rules else []
    for message in messages:
        for role, content in _said(message):
            if found and found[-1]["role"] == role:
                found[-1]["content"] = f"{found[-1]['content']}\n{content}".strip()
            else:
                found.append({"role": role, "content": content})
    return found


def without_system(turns: Sequence[Turn]) -> list[Turn]:
    """The same for a chat template that takes no system turn: the first user turn says it."""
    if not turns or turns[0]["role"] != "system":
        return list(turns)
    rules, rest = turns[0]["content"], list(turns[1:])
    for place, turn in enumerate(rest):
        if turn["role"] == "user":
            rest[place] = {"role": "user", "content": f"{rules}\n\n{turn['content']}"}
            return rest
    return [{"role": "user", "content": rules}, *rest]


def _plain(request: Request) -> tuple[Message, ...]:
    said = [("user", request.prompt), ("assistant", request.response)]
    return tuple({"role": role, "content": text} for role, text in said if text is not None)


def _said(message: Message) -> Iterator[tuple[str, str]]:
    """What a message adds to the turns after the system's: (role, content)."""
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
    """One tool call as JSON; arguments that are JSON in a text are unpacked first."""
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        raise InputError(
            f"tool_calls: found {type(call).__name__}; expected objects such as "
            '{"function": {"name": ..., "arguments": ...}}'
        )
    said = {"name": function.get("name"), "arguments": arguments_of(function)}
    action = json.dumps(said, ensure_ascii=False, default=str)
    check_text("tool_calls", action)
    return f"Action: {action}"


def _tools_block(tools: Sequence[Mapping[str, Any]]) -> str:
    """The tools that the agent was given, each with its parameters spelled out."""
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
    """One line: name, type, default and description, as far as they are there."""
    facts = [str(spec["type"])] if spec.get("type") else []
    if spec.get("default") is not None:
        facts.append(f"default {spec['default']!r}")
    line = f"  - {name}" + (f" ({', '.join(facts)})" if facts else "")
    description = _words(spec.get("description"))
    return f"{line}: {description}" if description else line


def _words(value: Any) -> str:
    return str(value or "").strip()
