"""The largest request that a guard reads. Checked before any other work on a request."""

import sys
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from layerguard.runtime.errors import InputError

Beyond = Literal["truncate", "refuse"]
"""What happens with a text that is longer than allowed."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest request that a guard reads.

    A request with too many turns, values or tools, or one nested too deeply, is refused. If its
    texts are too long, ``beyond`` decides.

    Attributes:
        characters: of all texts of a request together. ``truncate`` keeps the short texts whole and
            the first and last characters of the longest ones.
        messages: turns of a chat.
        parts: values inside messages and tools: texts, numbers, lists and objects.
        tools: tool descriptions.
        depth: levels of lists and objects inside one message or tool.
        tokens: of one view of a request. ``truncate`` reads that many, in fewer windows than the
            bundle allows. ``refuse`` refuses a longer view even if the bundle would read its start
            and end.
        beyond: ``truncate``: a text that is too long is read in part, and ``Verdict.truncated`` is
            True. ``refuse``: ``InputError``.

    Raises:
        InputError: a number is less than 1, or ``beyond`` has another value.
    """

    characters: int = 1_000_000
    messages: int = 10_000
    parts: int = 200_000
    tools: int = 1_000
    depth: int = 32
    tokens: int = 500_000
    beyond: Beyond = "truncate"

    def __post_init__(self) -> None:
        """Refuse values that allow nothing."""
        numbers = {name: value for name, value in asdict(self).items() if name != "beyond"}
        wrong = [f"{n} {v!r}" for n, v in numbers.items() if type(v) is not int or v < 1]
        if wrong:
            raise InputError(f"limits: found {', '.join(wrong)}; expected whole numbers from 1 on")
        if self.beyond not in get_args(Beyond):
            raise InputError(f"limits: found beyond {self.beyond!r}; expected truncate or refuse")

    def check_count(self, name: str, found: int) -> None:
        """Refuse more of something than is allowed.

        Args:
            name: an attribute of this class.
            found: the number of them.

        Raises:
            InputError: there are too many.
        """
        most = getattr(self, name)
        if found > most:
            raise InputError(
                f"found more than {most} {_NAMES[name]}; expected at most that many, or a guard "
                f"that was loaded with limits=Limits({name}=...)"
            )


_NAMES = {
    "messages": "messages",
    "parts": "values in messages and tools",
    "tools": "tools",
    "depth": "levels of lists and objects",
    "tokens": "tokens",
}

_ANY = sys.maxsize
NO_LIMITS = Limits(_ANY, _ANY, parts=10_000_000, tools=_ANY, depth=100, tokens=_ANY)
"""For requests that a guard reads later, within its own limits. Values that contain themselves are
still refused."""
