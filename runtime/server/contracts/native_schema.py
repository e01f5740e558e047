"""What the native contract takes and gives, as JSON Schema for the OpenAPI document."""

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]

LINES = "application/x-ndjson"
EVENTS = "text/event-stream"

_TEXT: Schema = {"type": "string"}
_PART: Schema = {"type": "object"}
_MESSAGE: Schema = {
    "type": "object",
    "required": ["role"],
    "properties": {
        "role": _TEXT,
        "content": {"anyOf": [{"type": ["string", "null"]}, {"type": "array", "items": _PART}]},
    },
}
_REQUESTS: tuple[tuple[dict[str, Schema], dict[str, Schema]], ...] = (
    ({"text": _TEXT}, {}),
    ({"prompt": _TEXT}, {"response": _TEXT}),
    (
        {"messages": {"type": "array", "minItems": 1, "items": _MESSAGE}},
        {"tools": {"type": "array", "items": {"type": "object"}}},
    ),
)
"""What a request must have, and what it may have besides."""

_BUNDLE: Schema = {"$ref": "#/components/schemas/Bundle"}
_ROUTE: dict[str, Schema] = {"domain": _TEXT, "bundle": _BUNDLE}
_DEADLINE: dict[str, Schema] = {"deadline_ms": {"type": "number", "exclusiveMinimum": 0}}
_SAMPLING: dict[str, Schema] = {
    "max_new_tokens": {"type": "integer", "minimum": 1},
    "on_flag": {"enum": ["abstain", "steer", "log"]},
    "temperature": {"type": "number", "minimum": 0},
    "top_k": {"type": "integer", "minimum": 0},
    "top_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    "seed": {"type": "integer", "minimum": 0},
    "stop": {"type": "array", "items": {"type": "string", "minLength": 1}},
}


def _optional(schemas: Mapping[str, Schema]) -> dict[str, Schema]:
    return {name: {"anyOf": [schema, {"type": "null"}]} for name, schema in schemas.items()}


def _object(needed: Mapping[str, Schema], optional: Mapping[str, Schema]) -> Schema:
    """An object; null counts as absent."""
    known = {name for pair in _REQUESTS for part in pair for name in part} - needed.keys()
    absent = {name: {"type": "null"} for name in sorted(known)}
    return {
        "type": "object",
        "required": list(needed),
        "properties": {**absent, **_optional(optional), **needed},
        "additionalProperties": False,
    }


def _requests(more: Mapping[str, Schema]) -> list[Schema]:
    """A schema for each kind of request, with more values that it may have."""
    return [_object(needed, {**optional, **more}) for needed, optional in _REQUESTS]


def _generations() -> list[Schema]:
    """As ``_requests``; an answer has no response yet, and is not asked with ``text``."""
    schemas: list[Schema] = []
    for needed, optional in _REQUESTS[1:]:
        own = {name: schema for name, schema in optional.items() if name != "response"}
        schema = _object(needed, {**own, **_ROUTE, **_SAMPLING})
        left = {k: v for k, v in schema["properties"].items() if k not in ("text", "response")}
        schemas.append({**schema, "properties": left})
    return schemas


_MANY: Schema = {
    "type": "object",
    "required": ["requests"],
    "properties": {
        "requests": {"type": "array", "minItems": 1, "items": {"anyOf": _requests({})}},
        **_optional({**_ROUTE, **_DEADLINE}),
    },
    "additionalProperties": False,
}
_SINGLE = [
    {**one, "properties": {"requests": {"type": "null"}, **one["properties"]}}
    for one in _requests({**_ROUTE, **_DEADLINE})
]

_NUMBER: Schema = {"type": ["number", "null"]}
_READING: Schema = {
    "type": "object",
    "required": ["detector", "score", "threshold", "flagged", "status"],
    "properties": {
        "detector": _TEXT,
        "score": _NUMBER,
        "threshold": _NUMBER,
        "p_value": _NUMBER,
        "flagged": {"type": "boolean"},
        "status": _TEXT,
    },
}
SCHEMAS: Mapping[str, Schema] = {
    "Verdict": {
        "type": "object",
        "required": ["blocked", "mode", "bundle", "reason"],
        "properties": {
            "blocked": {"type": "boolean", "description": "what to do: true if it must not pass"},
            "mode": {"enum": ["enforce", "shadow", "off"]},
            "bundle": _TEXT,
            "reason": _TEXT,
            "flagged": {"type": "boolean", "description": "by the guard, in any mode"},
            "bundle_id": _TEXT,
            "readings": {"type": "object", "additionalProperties": _READING},
            "timings_ms": {"type": "object", "additionalProperties": {"type": "number"}},
            "tokens": {"type": "integer"},
            "truncated": {"type": "boolean"},
            "p_value": _NUMBER,
        },
    },
    "Error": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "status"],
                "properties": {"message": _TEXT, "status": {"type": "integer"}},
            }
        },
    },
}
_VERDICT: Schema = {"$ref": "#/components/schemas/Verdict"}
_RESULTS: Schema = {
    "type": "object",
    "required": ["results"],
    "properties": {"results": {"type": "array", "items": _VERDICT}},
}


def _body(schema: Schema, *kinds: str) -> Schema:
    media = {kind: {"schema": schema} for kind in kinds or ("application/json",)}
    return {"required": True, "content": media}


def _answer(meaning: str, schema: Schema, *kinds: str) -> Schema:
    media = {kind: {"schema": schema} for kind in kinds or ("application/json",)}
    return {"200": {"description": meaning, "content": media}}


CHECK: Schema = {
    "summary": "Check a text, a prompt with its response, a chat, or many of these",
    "requestBody": _body({"anyOf": [*_SINGLE, _MANY]}),
    "responses": _answer("The verdict, or one for each request", {"anyOf": [_VERDICT, _RESULTS]}),
}
BUNDLES: Schema = {
    "summary": "The bundles that serve, their detectors and thresholds",
    "responses": _answer(
        "The first one answers requests that name none",
        {
            "type": "object",
            "required": ["bundles"],
            "properties": {"bundles": {"type": "array", "items": {"type": "object"}}},
        },
    ),
}
STREAM: Schema = {
    "summary": "Check an answer while it is written: a request, then {chunk} for each part of it",
    "requestBody": _body(_TEXT, LINES, EVENTS),
    "responses": _answer("A verdict for each line, as soon as it was read", _TEXT, LINES, EVENTS),
}
GENERATE: Schema = {
    "summary": "Let the bundle's own model answer; the guard checks every token",
    "requestBody": _body({"anyOf": _generations()}),
    "responses": _answer("A line for each event", _TEXT, LINES, EVENTS),
}
