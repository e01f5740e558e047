"""Parses plain JSON into frozen dataclasses and lists every value of a wrong type."""

import dataclasses
import json
import math
import reprlib
import sys
import types
import typing
from typing import Any

from layerguard.runtime.errors import InputError

_LEVELS = 16
"""Maximum nesting of a value of type ``Any``."""

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring = 2, 60


def decode(data: bytes) -> Any:
    """The JSON value in ``data``.

    Raises:
        ValueError: it is not JSON in UTF-8, or an object has a key twice.
        RecursionError: it is nested too deeply.
    """
    value = json.loads(data.decode("utf-8"), object_pairs_hook=without_duplicates)
    json.dumps(value, ensure_ascii=False).encode()  # fails on a lone surrogate
    return value


def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; raises ValueError for duplicate keys, which JSON readers treat differently."""
    value: dict[str, Any] = {}
    for key, item in pairs:
        if key in value:
            raise ValueError(f"the key {key[:60]!r} appears twice in one object")
        value[key] = item
    return value


def parse(kind: Any, value: Any, path: str, faults: list[str]) -> Any:
    """``value`` as an instance of ``kind``; every mismatch is appended to ``faults``.

    Supports dataclasses, ``dict[str, X]``, ``tuple[X, ...]``, ``Literal``, ``X | None``, ``Any``
    and the JSON scalars. Unknown and missing keys are faults. An integer is accepted as a float;
    NaN and infinity are not.
    """
    origin = typing.get_origin(kind)
    if kind is Any and _is_plain(value, _LEVELS):
        return value
    if dataclasses.is_dataclass(kind):
        return _parse_dataclass(kind, value, path, faults)
    if origin is dict and isinstance(value, dict):
        inner = typing.get_args(kind)[1]
        return {
            key: parse(inner, item, f"{path}.{_key(key)}", faults) for key, item in value.items()
        }
    if origin is tuple and isinstance(value, list):
        inner = typing.get_args(kind)[0]
        return tuple(parse(inner, item, f"{path}[{i}]", faults) for i, item in enumerate(value))
    if origin is typing.Literal and value in typing.get_args(kind):
        return value
    if origin in (typing.Union, types.UnionType):
        options = [option for option in typing.get_args(kind) if option is not type(None)]
        return None if value is None else parse(options[0], value, path, faults)
    if kind is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:
        return float(value)
    if kind in (str, int, bool) and type(value) is kind:
        return value
    faults.append(f"{path}: found {_short(value)}; expected {_name(kind)}")
    return None


def _parse_dataclass(kind: Any, value: Any, path: str, faults: list[str]) -> Any:
    if not isinstance(value, dict):
        faults.append(f"{path}: found {_short(value)}; expected an object")
        return None
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    faults += [f"{path}: unknown key {_short(key)}" for key in value if key not in fields]
    arguments: dict[str, Any] = {}
    complete = True
    before = len(faults)
    for name, field in fields.items():
        if name in value:
            arguments[name] = parse(hints[name], value[name], f"{path}.{name}", faults)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            complete = False
            faults.append(f"{path}: no key {name!r}; expected {_name(hints[name])}")
    if not complete or len(faults) > before:
        return None
    try:
        return kind(**arguments)
    except InputError as error:  # values that have the right types and contradict the type's rules
        faults.append(f"{path}: {error}")
        return None


def _is_plain(value: Any, levels: int) -> bool:
    """Whether a JSON value is nested no deeper than ``levels`` and has only finite numbers."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return levels > 0 and all(_is_plain(item, levels - 1) for item in value)
    return not isinstance(value, float) or math.isfinite(value)


def _short(value: Any) -> str:
    text = _SHORT.repr(value)  # bounded in depth and breadth for any value
    return f"{text[:60]}..." if len(text) > 62 else text


def _key(key: str) -> str:
    """A key as a step of a path; quoted if it is long or not printable."""
    return key if key.isprintable() and len(key) <= 60 else _short(key)


def _name(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return " or ".join(repr(option) for option in typing.get_args(kind))
    names = {str: "a text", int: "a whole number", float: "a finite number", bool: "true or false"}
    if kind in names:
        return names[kind]
    if kind is Any:
        return f"finite values nested at most {_LEVELS} levels deep"
    return "a list" if typing.get_origin(kind) is tuple else "an object"
