"""SIREN's second stage: a small network over the chosen neurons.

The network is an ensemble of one-hidden-layer networks with different seeds, whose logits are
averaged. Concatenated, they are one network with one hidden layer, so the ensemble has no extra
cost when it serves. Measured on four safety sets (MiniLM, five folds): macro-F1 +0.5 and AUROC
+0.005 over one network of the same total width. A second hidden layer or more than three members
gave no improvement.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit
from sklearn.neural_network import MLPClassifier

from layerguard.calibration.siren.probes import standardisation, standardised
from layerguard.runtime.types import Array

MEMBERS = 3
HIDDEN = 128
"""Hidden units of each member."""

_ROWS = 1024
"""Rows that are scored at once, in float64."""

_LEARNING_RATE = 1e-3
_STEPS_AN_EPOCH = 16
_BATCH = (32, 256)
"""Least and largest batch size; between them an epoch has ``_STEPS_AN_EPOCH`` steps."""


@dataclass(frozen=True, slots=True)
class Head:
    """A network ready to be frozen.

    Attributes:
        weights: float32 [out, in] of each linear map; the last has two rows, 0 safe, 1 harmful.
        biases: float32 [out] of each linear map.
    """

    weights: tuple[Array, ...]
    biases: tuple[Array, ...]

    def probability(self, features: Array) -> Array:
        """softmax(logits)[1], float64 [n]: what ``SirenKernel`` computes."""
        return np.concatenate(
            [
                self._probability(features[start : start + _ROWS])
                for start in range(0, len(features), _ROWS)
            ]
        )

    def _probability(self, features: Array) -> Array:
        value = features.astype(np.float64)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            value = np.maximum(value @ weight.T + bias, 0.0)
        logits = value @ self.weights[-1].T + self.biases[-1]
        harmful: Array = expit(logits[:, 1] - logits[:, 0])
        return harmful


class Committee:
    """Networks in training, on features that are standardised by the training rows."""

    def __init__(self, features: Array, labels: Array, decay: float, seed: int) -> None:
        """Create the members.

        Args:
            features: float32 [n, features], the training rows.
            labels: int [n], 1 is harmful.
            decay: factor of half the squared weights in the loss.
            seed: random seed of the first member; the others have the next integers.
        """
        self._mean, self._deviation = standardisation(features)
        self._features = standardised(
            features, np.arange(len(features)), self._mean, self._deviation, np.float32
        )
        self._labels = labels
        low, high = _BATCH
        batch = min(int(np.clip(len(labels) // _STEPS_AN_EPOCH, low, high)), len(labels))
        self._members = [
            MLPClassifier(
                (HIDDEN,),
                alpha=decay * batch,  # scikit-learn divides it by the batch size
                batch_size=batch,
                learning_rate_init=_LEARNING_RATE,
                random_state=seed + member,
            )
            for member in range(MEMBERS)
        ]

    def learn(self, epochs: int) -> None:
        """Train for ``epochs`` more passes over the rows."""
        for member in self._members:
            for _ in range(epochs):
                member.partial_fit(self._features, self._labels, classes=[0, 1])

    def head(self) -> Head:
        """The ensemble as one network on raw features; it includes the standardisation."""
        inner = [member.coefs_[0].T for member in self._members]
        outer = np.concatenate([member.coefs_[1][:, 0] for member in self._members]) / MEMBERS
        first = np.concatenate(inner) / self._deviation
        bias = np.concatenate([member.intercepts_[0] for member in self._members])
        last_bias = np.mean([member.intercepts_[1][0] for member in self._members])
        return Head(
            weights=_float32([first, np.stack([np.zeros_like(outer), outer])]),
            biases=_float32([bias - first @ self._mean, np.array([0.0, last_bias])]),
        )


def _float32(arrays: Sequence[Array]) -> tuple[Array, ...]:
    return tuple(np.ascontiguousarray(array, dtype=np.float32) for array in arrays)
