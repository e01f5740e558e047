"""What training reads of a text: the mean states of its windows of tokens.

The mean logit of a window is the logit of its mean state, because the probe is linear. So the
windows' mean states are all that a fit needs, and their number per text is bounded.
"""

import numpy as np

from layerguard.runtime.errors import InputError
from layerguard.runtime.types import Array

MOST_WINDOWS = 128
"""Windows that are kept of a text; of a longer one, evenly spaced windows."""

PLACE = 2
"""Columns before a window's states: its first token, and the token after its last one."""


class WindowSample:
    """Reads the mean states of a text's windows, in the form of a ``Probe``.

    Attributes:
        layers: the states that are read, ascending.
        window: tokens of a window; a shorter text has one window.
    """

    def __init__(self, layers: tuple[int, ...], window: int) -> None:
        self.layers, self.window = layers, window

    def windows(
        self, states: object, mask: Array | None = None, into: Array | None = None
    ) -> Array:
        """Windows of one text, float32 [128, 2 + layers x hidden]; unused rows are zero.

        Args:
            states: [tokens, hidden] by state index.
            mask: must be None.
            into: must be None.
        """
        if mask is not None or into is not None:
            raise InputError("found a mask or earlier tokens; expected a whole text to sample")
        whole = np.concatenate([np.asarray(states[layer]) for layer in self.layers], axis=1)  # type: ignore[index]
        tokens = len(whole)
        size = min(self.window, tokens)
        starts = np.arange(tokens - size + 1)
        if len(starts) > MOST_WINDOWS:
            starts = np.unique(np.linspace(0, len(starts) - 1, MOST_WINDOWS).astype(int))
        sums = np.concatenate([np.zeros((1, whole.shape[1])), np.cumsum(whole, 0, np.float64)])
        found = np.zeros((MOST_WINDOWS, PLACE + whole.shape[1]), np.float32)
        found[: len(starts), 0], found[: len(starts), 1] = starts, starts + size
        found[: len(starts), PLACE:] = (sums[starts + size] - sums[starts]) / size
        return found

    def place(self, windows: Array) -> tuple[int, int]:
        """The first token of the first window, and the token after its last one."""
        return int(windows[0, 0]), int(windows[0, 1])
