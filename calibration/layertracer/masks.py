"""The masks of one block, as gates of an analysis graph.

The paper masks a layer and observes the output, but does not publish how it masks. Three ways:

zero      the block is skipped: its output is its input
ablate    the block's output is set to 0, which also removes the output of all blocks before it
dim-mask  a random share of the dimensions of the block's output is set to 0

In a model such as Llama, without biases and with norms before each part, a state of zeros remains
zero through all later blocks: ``ablate`` then gives the same output for every block.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from layerguard.runtime.errors import InputError
from layerguard.runtime.types import Array

Mode = Literal["zero", "ablate", "dim-mask"]


@dataclass(frozen=True, slots=True)
class Mask:
    """How a block is masked.

    Attributes:
        mode: ``zero``, ``ablate`` or ``dim-mask``.
        share: share of the dimensions that ``dim-mask`` sets to 0, above 0 and at most 1.
        seed: random seed of the dimensions, which differ by block and are equal for all prompts.
    """

    mode: Mode = "zero"
    share: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a share that is out of range."""
        if not 0 < self.share <= 1:
            raise InputError(f"share: found {self.share}; expected a share above 0 and at most 1")

    def gates(self, blocks: Sequence[int], layers: int, width: int) -> tuple[Array, Array]:
        """The gates of one row for each block, which mask only this block.

        Args:
            blocks: the block that each row masks, 1..L.
            layers: number of blocks, L.
            width: hidden size, D.

        Returns:
            ``bypass`` bool [rows, L] and ``keep`` float32 [rows, L, D].
        """
        bypass, keep = inert(len(blocks), layers, width)
        for row, block in enumerate(blocks):
            if self.mode == "zero":
                bypass[row, block - 1] = True
            elif self.mode == "ablate":
                keep[row, block - 1] = 0
            else:
                drawn = np.random.default_rng([self.seed, block]).permutation(width)
                keep[row, block - 1, drawn[: round(self.share * width)]] = 0
        return bypass, keep


def inert(rows: int, layers: int, width: int) -> tuple[Array, Array]:
    """Gates that change nothing: ``bypass`` bool [rows, L], ``keep`` float32 [rows, L, D]."""
    return np.zeros((rows, layers), bool), np.ones((rows, layers, width), np.float32)
