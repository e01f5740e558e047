"""A target token's probability from layer to layer, and the layer where it first rises.

The paper's "task particle" is the layer where the target's probability first rises significantly
(arXiv 2604.20556, abstract). The paper does not define "significantly". This module has two
definitions of its own, and both are reported.
"""

from dataclasses import dataclass

import numpy as np

from layerguard.runtime.errors import InputError
from layerguard.runtime.types import Array


@dataclass(frozen=True, slots=True)
class Rise:
    """The definition of a significant rise.

    Attributes:
        least_ratio: least ratio of a layer's probability to that of the layer before.
        least_probability: least probability at the layer, in 0..1.
        floor: least divisor of a ratio. Early layers give a target about 1e-6, and the ratio of
            two such numbers is noise. A floor near ``least_probability`` removes this noise from
            ``max_ratio_layer``.
    """

    least_ratio: float = 2.0
    least_probability: float = 0.01
    floor: float = 1e-12

    def __post_init__(self) -> None:
        """Refuse values that are out of range."""
        if not (self.least_ratio > 0 and 0 <= self.least_probability <= 1 and 0 < self.floor <= 1):
            raise InputError(
                f"found a least ratio of {self.least_ratio}, a least probability of "
                f"{self.least_probability} and a floor of {self.floor}; expected a ratio above 0, "
                "a probability from 0 to 1 and a floor above 0 and at most 1"
            )


def log_softmax(logits: Array) -> Array:
    """Log-probabilities in float64 of finite logits [..., vocabulary], of any float dtype."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    normal: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normal


def ratios(probability: Array, floor: float) -> Array:
    """Ratio_l = p_l / max(p_{l-1}, floor), l = 1..L: float64 [L] from float64 [L + 1]."""
    ratio: Array = probability[1:] / np.maximum(probability[:-1], floor)
    return ratio


def max_ratio_layer(ratio: Array) -> int:
    """The layer, 1..L, of the largest ratio; ties go to the first."""
    return int(ratio.argmax()) + 1


def first_rise_layer(probability: Array, ratio: Array, rise: Rise) -> int | None:
    """The first layer, 1..L, that reaches both bounds of ``rise``; None if no layer does."""
    risen = (ratio >= rise.least_ratio) & (probability[1:] >= rise.least_probability)
    return int(risen.argmax()) + 1 if risen.any() else None
