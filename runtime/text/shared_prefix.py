"""The longest common prefix of two texts or token lists, by binary search over slices."""

from collections.abc import Sequence
from typing import Any


def shared_prefix(first: Sequence[Any], second: Sequence[Any]) -> int:
    """Length of the longest common prefix of two texts, or of two lists."""
    low, high = 0, min(len(first), len(second))
    if first[:high] == second[:high]:
        return high
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
