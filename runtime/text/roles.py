"""Assigns a role (system, user, assistant, tool) to each token of a chat."""

from collections.abc import Iterable, Sequence

from layerguard.runtime.text.shared_prefix import shared_prefix
from layerguard.runtime.types import ROLES

Owner = tuple[int, int]
"""End of a part of the text, in characters, and the role of the part (index in ``ROLES``)."""

SYSTEM, USER, ASSISTANT, TOOL = range(len(ROLES))

_BY_NAME = {
    "system": SYSTEM, "developer": SYSTEM,
    "assistant": ASSISTANT, "model": ASSISTANT,
    "tool": TOOL, "function": TOOL, "ipython": TOOL,
}  # fmt: skip


def role_of(name: str) -> int:
    """The role of a turn by its name; unknown names have the role user."""
    return _BY_NAME.get(name.lower(), USER)


def owners(whole: str, prefixes: Iterable[tuple[str, int]], last: int) -> list[Owner]:
    """The role of each part of a rendered chat.

    The chat is rendered up to each turn. The prefix that this text shares with the whole chat,
    beyond the prefix of the turn before, belongs to that turn. The rest belongs to the last turn.
    Source: WeightWatch, arXiv 2508.00161, reference code.

    Args:
        whole: the rendered chat.
        prefixes: for each turn but the last, the chat rendered up to that turn, and its role.
        last: role of the last turn.
    """
    parts: list[Owner] = []
    end = 0
    for prefix, role in prefixes:
        common = shared_prefix(prefix, whole)
        if common > end:
            parts.append((common, role))
            end = common
    return [*parts, (len(whole), last)]


def owners_by_turn(turns: Sequence[tuple[str, int]], opening: str) -> list[Owner]:
    """As ``owners``, for a template that renders each turn alone, one after the other.

    The chat rendered up to a turn is then the text of the turns so far and ``opening``, which need
    not be rendered: the cost grows with the text, not with its square.

    Args:
        turns: the text that each turn adds to the rendered chat, and its role.
        opening: the text that opens the answer, after the last turn.
    """
    whole = "".join(text for text, _ in turns) + opening
    parts: list[Owner] = []
    written = end = 0
    for i, (text, role) in enumerate(turns[:-1]):
        written += len(text)
        if role == turns[i + 1][1]:
            continue
        shared = shared_prefix(opening, whole[written : written + len(opening)])
        if written + shared > end:
            end = written + shared
            parts.append((end, role))
    return [*parts, (len(whole), turns[-1][1])]


def token_roles(ends: Sequence[int], parts: Sequence[Owner]) -> bytes:
    """The role of each token: the role of the first part that reaches the token's end.

    Args:
        ends: end offset of each token in characters, in ascending order.
        parts: the result of ``owners``.
    """
    roles = bytearray()
    place = 0
    for end in ends:
        while place < len(parts) - 1 and parts[place][0] < end:
            place += 1
        roles.append(parts[place][1])
    return bytes(roles)
