"""The changes that a LoRA adapter makes to the matrices that write into the residual stream.

``runtime/checkpoints/lora.py`` reads the adapter, also for the exporter, and defines plain LoRA.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from layerguard.calibration.weights.files import StoredTensor, stored_tensors
from layerguard.runtime.checkpoints.lora import Lora, paired, read_lora
from layerguard.runtime.checkpoints.places import Place, place_of
from layerguard.runtime.errors import InputError
from layerguard.runtime.types import Array


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter's matrices that write into the residual stream.

    Attributes:
        lora: settings of the adapter.
        pairs: A [r, inputs] and B [width, r] by place; r may differ by place.
    """

    lora: Lora
    pairs: Mapping[Place, tuple[StoredTensor, StoredTensor]]

    @property
    def places(self) -> tuple[Place, ...]:
        """Block and part of each matrix, in order."""
        return tuple(sorted(self.pairs))

    def shape(self, place: Place) -> tuple[int, int]:
        """(width, inputs) of the changed matrix."""
        a, b = self.pairs[place]
        return b.shape[0], a.shape[1]

    def factors(self, place: Place) -> tuple[Array, Array]:
        """Two matrices whose product is the change, float64 [width, r] and [r, inputs]."""
        a, b = self.pairs[place]
        return self.lora.scale(a.shape[0]) * b.read().astype(np.float64), a.read().astype(
            np.float64
        )


def read_adapter(folder: Path) -> Adapter:
    """Read the adapter in a folder.

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
            f"{folder}: found changes of {', '.join(kinds) or 'nothing'}; expected changes of an "
            "output matrix of attention or of the feed-forward part (o_proj, down_proj or the "
            "architecture's names for them). WeightWatch watches only these"
        )
    return Adapter(lora, pairs)
