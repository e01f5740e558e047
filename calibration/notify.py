"""Callbacks for messages during a long call."""

from collections.abc import Callable

Notify = Callable[[str], object]
"""A function that takes one message, such as ``print``."""


def silent(_: object) -> None:
    """Ignore the message."""
