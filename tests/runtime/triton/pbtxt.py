"""Reads the text form of a protobuf message without its schema: enough for our config.pbtxt."""

import json
import re
from typing import Any

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+')


def parse(text: str) -> dict[str, list[Any]]:
    """The fields of a message, each as the list of its values."""
    tokens = _TOKEN.findall(text)
    found = _fields(tokens)
    assert not tokens
    return found


def to_json(message: dict[str, list[Any]]) -> str:
    """What Triton gives a Python model of its configuration: the parts that ours reads."""
    parameters = {
        one["key"][0]: {"string_value": one["value"][0]["string_value"][0]}
        for one in message["parameters"]
    }
    outputs = [{"name": one["name"][0]} for one in message["output"]]
    return json.dumps({"parameters": parameters, "output": outputs})


def _fields(tokens: list[str]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    while tokens and tokens[0] != "}":
        name = tokens.pop(0)
        if tokens[0] == ":":
            tokens.pop(0)
        found.setdefault(name, []).append(_value(tokens))
    return found


def _value(tokens: list[str]) -> Any:
    token = tokens.pop(0)
    if token == "{":
        fields = _fields(tokens)
        assert tokens.pop(0) == "}"
        return fields
    if token == "[":
        values = []
        while (one := tokens.pop(0)) != "]":
            if one != ",":
                values.append(json.loads(one))
        return values
    return token if token.isidentifier() and token not in ("true", "false") else json.loads(token)
