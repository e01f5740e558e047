"""The changes that a LoRA adapter makes to the matrices that write into the residual stream.

What counts as a plain adapter is said in ``runtime/checkpoints/lora.py``, as the exporter has it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from layerguard.calibration.weight_files import StoredTensor, stored_tensors
from layerguard.calibration.weight_names import Place, place_of
from layerguard.runtime.checkpoints.lora import Lora, is_adapter, paired, read_lora
from layerguard.runtime.errors import InputError
from layerguard.runtime.types import Array

__all__ = ["Adapter", "is_adapter", "read"]


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter's matrices that write into the residual stream.

    Attributes:
        lora: its settings.
        pairs: A [r, inputs] and B [width, r] by place; r may differ.
    """

    lora: Lora
    pairs: Mapping[Place, tuple[StoredTensor, StoredTensor]]

    @property
    def places(self) -> tuple[Place, ...]:
        """Block and part of the matrices, in order."""
        return tuple(sorted(self.pairs))

    def shape(self, place: Place) -> tuple[int, int]:
        """(width, inputs) of the matrix that is changed."""
        a, b = self.pairs[place]
        return b.shape[0], a.shape[1]

    def factors(self, place: Place) -> tuple[Array, Array]:
        """Two matrices whose product is the change, float64 [width, r] and [r, inputs]."""
        a, b = self.pairs[place]
        return self.lora.scale(a.shape[0]) * b.read().astype(np.float64), a.read().astype(
            np.float64
        )


def read(folder: Path) -> Adapter:
    """The adapter in a folder.

    Raises:
        InputError: it is not plain LoRA, or changes no matrix that writes into the residual stream.
    """
    lora = read_lora(folder)
    factors = paired(folder, stored_tensors(folder))
    pairs = {
        place: pair for module, pair in factors.items() if (place := place_of(module)) is not None
    }
    if not pairs:
        kinds = sorted({module.rpartition(".")[2] for module in factors})
        raise InputError(
            f"{folder}: found changes of {', '.join(kinds) or 'nothing'}; expected some of an "
            "output matrix of attention or of the feed-forward part (o_proj, down_proj and their "
            "kin). WeightWatch watches only these"
        )
    return Adapter(lora, pairs)
