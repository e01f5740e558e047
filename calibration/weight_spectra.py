"""Singular vectors of what tuning changed, by the cheapest way that is exact.

An adapter's change is a product of thin factors: QR of both, and the SVD of an r x r matrix. Of any
other change the leading eigenvectors of its Gram matrix are taken: half the work of a full SVD,
and, unlike Lanczos or randomised iteration, no slower where singular values lie close together, as
those of a fully tuned model do. All in float64: a singular value sigma is good to about
1e-16 (sigma_0 / sigma)^2 relative, 1e-10 at the floor below which none is kept.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from layerguard.calibration.weights import Change
from layerguard.runtime.types import Array

RELATIVE_FLOOR = 1e-3
"""Singular values below this share of the largest are noise: their vectors are arbitrary."""


@dataclass(frozen=True, slots=True)
class Spectrum:
    """The leading singular values and left singular vectors of one change.

    Attributes:
        values: float64 [k], descending.
        vectors: float64 [k, width], unit rows; the largest component of each is positive.
        energy: sum of the squares of all singular values, the squared Frobenius norm.
    """

    values: Array
    vectors: Array
    energy: float

    def above(self, floor: float) -> "Spectrum":
        """Only the values above ``floor``."""
        kept = int(np.count_nonzero(self.values > floor))
        return Spectrum(self.values[:kept], self.vectors[:kept], self.energy)


def leading(change: Change, k: int) -> Spectrum:
    """The first ``k`` singular values above noise, or all there are.

    A value is noise at or below ``RELATIVE_FLOOR`` of the largest, or at or below what rounding the
    stored weights may have made (``change.noise``); an unchanged matrix has none.
    """
    values, vectors, energy = _svd(change.factors, k)
    spectrum = Spectrum(values[:k], _signed(vectors[:, :k].T), energy)
    return spectrum.above(max(change.noise, RELATIVE_FLOOR * max(values, default=0.0)))


def _svd(factors: tuple[Array, ...], k: int) -> tuple[Array, Array, float]:
    """At least min(k, all) singular values, descending, left vectors as columns, and the energy."""
    if len(factors) == 2:
        left, right = factors
        basis, upper = np.linalg.qr(left)
        middle = upper @ np.linalg.qr(right.T)[1].T
        vectors, values, _ = np.linalg.svd(middle)
        return values, basis @ vectors, float(values @ values)
    (matrix,) = factors
    energy = float(np.vdot(matrix, matrix))
    count = min(k, *matrix.shape)
    squares, vectors = scipy.linalg.eigh(
        matrix @ matrix.T, subset_by_index=(len(matrix) - count, len(matrix) - 1)
    )
    values = np.sqrt(np.maximum(squares, 0.0))
    order = np.argsort(-values, kind="stable")
    return values[order], vectors[:, order], energy


def _signed(vectors: Array) -> Array:
    """Rows turned so that the component of largest magnitude is positive."""
    largest = np.argmax(np.abs(vectors), axis=1)
    signs = np.sign(vectors[np.arange(len(vectors)), largest])
    turned: Array = vectors * signs[:, None]
    return turned
