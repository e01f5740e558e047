"""Measures the texts of a request against limits, and shortens those that are too long."""

from collections.abc import Mapping, Sequence
from typing import Any

from layerguard.runtime.errors import InputError
from layerguard.runtime.limits import Limits


def text_lengths(items: Sequence[Any], limits: Limits) -> list[int]:
    """The lengths of all texts inside JSON values, keys included.

    Args:
        items: the messages and tools of a chat.
        limits: the most values, and the most levels of lists and objects.

    Raises:
        InputError: there are too many values, or they are nested too deeply.
    """
    lengths: list[int] = []
    level, count, depth = list(items), 0, 0
    while level:
        deeper: list[Any] = []
        for value in level:
            if isinstance(value, str):
                lengths.append(len(value))
                continue
            count += len(value) if isinstance(value, (Mapping, list, tuple)) else 0
            limits.check_count("parts", count)
            if isinstance(value, Mapping):
                deeper += value.keys()
                deeper += value.values()
            elif isinstance(value, (list, tuple)):
                deeper += value
        if deeper:
            depth += 1
            limits.check_count("depth", depth)
        level = deeper
    return lengths


def longest_allowed(lengths: Sequence[int], limits: Limits) -> int | None:
    """The length that texts are shortened to; None if all of them together are short enough.

    Raises:
        InputError: they are too long, and the limits say that they are refused.
    """
    total = sum(lengths)
    if total <= limits.characters:
        return None
    if limits.beyond == "refuse":
        raise InputError(
            f"found {total} characters; expected at most {limits.characters}, or a guard that was "
            'loaded with limits=Limits(characters=...) or beyond="truncate"'
        )
    left = limits.characters
    for i, length in enumerate(sorted(lengths)):
        share = left // (len(lengths) - i)
        if length > share:
            return share
        left -= length
    raise AssertionError("the texts together are longer than the limit, so one exceeds its share")


def shortened(value: Any, length: int) -> Any:
    """A JSON value whose texts have at most ``length`` characters, the first and the last ones."""
    if isinstance(value, str):
        if len(value) <= length:
            return value
        head, tail = length - length // 2, max(0, length // 2 - 1)
        return f"{value[:head]}\n{value[len(value) - tail :]}"[:length]
    if isinstance(value, Mapping):
        return {shortened(key, length): shortened(item, length) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [shortened(item, length) for item in value]
    return value
