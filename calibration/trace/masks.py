"""What becomes of one block at a time, as the gates of an analysis graph.

The paper masks a layer and looks at the output; how it masks is not published. Three ways:

zero      the block adds nothing: its output is its input, as if it were skipped
ablate    the block's output is set to 0, and all that came before is lost with it
dim-mask  a random share of the dimensions of the block's output is set to 0

In a model without biases and with norms before each part, as Llama is, a state of zeros stays one
through all further blocks: ``ablate`` then gives the same output whichever block it masks.
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
        mode: see above.
        share: of the dimensions that ``dim-mask`` sets to 0, above 0 and at most 1.
        seed: of the choice of dimensions; block by block another one, for all prompts the same.
    """

    mode: Mode = "zero"
    share: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a share that masks nothing, or more than all."""
        if not 0 < self.share <= 1:
            raise InputError(f"share: found {self.share}; expected a share above 0 and at most 1")

    def gates(self, blocks: Sequence[int], layers: int, width: int) -> tuple[Array, Array]:
        """One row a block: the gates that mask this block and leave the others alone.

        Args:
            blocks: 1..L, which block each row masks.
            layers: L.
            width: D.

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
