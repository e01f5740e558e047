"""Whose token it is: from the turns of a chat to a role for each token."""

from collections.abc import Iterable, Sequence

from layerguard.runtime.types import ROLES

Owner = tuple[int, int]
"""Up to which character a text is of which role (index in ``ROLES``)."""

SYSTEM, USER, ASSISTANT, TOOL = range(len(ROLES))

_BY_NAME = {
    "system": SYSTEM, "developer": SYSTEM,
    "assistant": ASSISTANT, "model": ASSISTANT,
    "tool": TOOL, "function": TOOL, "ipython": TOOL,
}  # fmt: skip


def role_of(name: str) -> int:
    """The role of a turn; a name that no model family uses for another is the user's."""
    return _BY_NAME.get(name.lower(), USER)


def owners(whole: str, prefixes: Iterable[tuple[str, int]], last: int) -> list[Owner]:
    """Who owns which part of a rendered chat.

    A turn owns what the chat rendered up to it has in common with the whole, where no earlier turn
    does; the rest is the last turn's. Source: WeightWatch, arXiv 2508.00161, reference code.

    Args:
        whole: the rendered chat.
        prefixes: the chat rendered up to and with each turn but the last, and the turn's role.
        last: role of the last turn.
    """
    found: list[Owner] = []
    end = 0
    for prefix, role in prefixes:
        common = _common(prefix, whole)
        if common > end:
            found.append((common, role))
            end = common
    return [*found, (len(whole), last)]


def token_roles(ends: Sequence[int], parts: Sequence[Owner]) -> bytes:
    """The role of each token: that of the first owner whose part reaches the token's end.

    Args:
        ends: the character behind each token, in the text's order.
        parts: as ``owners`` gives them.
    """
    roles = bytearray()
    place = 0
    for end in ends:
        while place < len(parts) - 1 and parts[place][0] < end:
            place += 1
        roles.append(parts[place][1])
    return bytes(roles)


def _common(left: str, right: str) -> int:
    """Characters that two texts have in common at their beginning."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
