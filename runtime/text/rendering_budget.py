"""What one rendering of a chat template may cost: steps, characters and processor time."""

import re
from collections.abc import Mapping
from string import Formatter
from time import thread_time
from typing import Any

from jinja2 import TemplateError

MAX_STEPS = 200_000
"""Most loop iterations and calls of one rendering. A chat of 1,000 turns needs about 10,000."""

MAX_CHARACTERS = 1 << 24
"""Most characters of one text that a template makes, and of the text that it renders."""

_MAX_SPENT = 1 << 26
"""Most characters of all texts together that a template makes: about 60 copies of a long chat."""

MAX_SECONDS = 5.0
"""Most processor time of the rendering thread. The largest chats need about one second."""

_MAX_NUMBER = 10_000
"""Largest width or precision."""

_ITEM = 16
"""Characters that one item of a list is counted as."""

_PERCENT_FORMAT = re.compile("%[^a-zA-Z%]*")
_NUMBER = re.compile("[0-9]+")


class Budget:
    """What is left of one rendering. Its methods raise TemplateError if nothing is left."""

    def __init__(self) -> None:
        self._steps = MAX_STEPS
        self._characters = _MAX_SPENT
        self._end = thread_time() + MAX_SECONDS

    def step(self) -> None:
        """Count one loop iteration or call."""
        self._steps -= 1
        if self._steps < 0:
            raise TemplateError(f"it needed more than {MAX_STEPS} loop iterations and calls")
        if thread_time() > self._end:
            raise TemplateError(f"it needed more than {MAX_SECONDS:g} s of processor time")

    def need(self, characters: int) -> None:
        """Refuse a text or list that would be too long, before it is made."""
        if characters > min(MAX_CHARACTERS, self._characters):
            raise TemplateError(
                f"it makes a text of {characters} characters, which is more than a template "
                f"needs; expected at most {MAX_CHARACTERS}, and {_MAX_SPENT} in all texts"
            )

    def spend(self, value: Any) -> Any:
        """Count a value that was made, without the values inside it, and return it."""
        size = _size(value)
        self.need(size)
        self._characters -= size
        return value

    def need_spelled(self, value: Any) -> None:
        """Refuse a value that is too long as text, before it is read.

        A list may hold the same list many times. Each time counts, as it does in the text.
        """
        size, waiting = 0, [value]
        while waiting:
            item = waiting.pop()
            size += _size(item)
            self.need(size)
            if isinstance(item, Mapping):
                waiting += [*item, *item.values()]
            elif isinstance(item, (list, tuple, set, frozenset)):
                waiting += item


def check_number(value: Any) -> None:
    """Refuse a width or precision with which a short text becomes a long one."""
    if isinstance(value, (int, float)) and not -_MAX_NUMBER <= value <= _MAX_NUMBER:
        raise TemplateError(
            f"found the width {value:.3g}, which is more than a template needs; expected at most "
            f"{_MAX_NUMBER}"
        )


def check_percent_format(text: str | bytes) -> None:
    """Refuse ``%`` formats whose width is large or an argument."""
    for place in _PERCENT_FORMAT.findall(str(text)):
        _check_widths(place, of_argument="*")


def check_brace_format(text: str) -> None:
    """Refuse formats of ``str.format`` whose width is large or an argument."""
    for _, _, specification, _ in Formatter().parse(text):
        _check_widths(specification or "", of_argument="{")


def _check_widths(specification: str, of_argument: str) -> None:
    if of_argument in specification:
        raise TemplateError(f"the format {specification[:20]!r} takes its width from an argument")
    for number in _NUMBER.findall(specification):
        check_number(float(number[:9]))


def _size(value: Any) -> int:
    """Characters of a text; of a list or object its own, without those of its items."""
    if isinstance(value, (str, bytes)):
        return len(value)
    if isinstance(value, int):
        return value.bit_length() // 3
    return len(value) * _ITEM if isinstance(value, (list, tuple, dict, set, frozenset)) else 1
