"""What fitting a detector yields: more than is frozen of it."""

from dataclasses import dataclass
from typing import Any

from layerguard.runtime.types import Array


@dataclass(frozen=True, slots=True)
class Trained:
    """A fitted detector.

    Attributes:
        params: what freezing writes; as ``fit`` returns them.
        held_out: float64 [n], each row's score by parameters that never saw it, in the rows' order.
        settings: the choices made, plain JSON types: what the manifest stores.
    """

    params: dict[str, Array]
    held_out: Array
    settings: dict[str, Any]
