"""The one table of tolerances, each derived from the rounding errors of what is compared.

U is the unit roundoff of float32: a rounded operation is exact within a factor 1 + U. A float32 sum
of n terms in 32 lanes rounds each term at most ceil(n / 32) times in its lane and 5 times in the
tree (Higham, "Accuracy and Stability of Numerical Algorithms", section 4.2), so it is exact within
``lanes(n)`` times the sum of the terms' magnitudes. Bounds are first-order in U; the kernels'
double steps are 2^29 times finer and are covered by ``SLACK``.
"""

import math

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

U = 2.0**-24
SLACK = 1.01

GOLDEN = 1e-5
"""Against published reference code, which itself computes in float32 (published to 1e-5)."""

LOGIT_EXPONENTIAL = 1e-15
"""Softmax of two logits: two exponentials of 3e-16, a sum and a quotient of 1.1e-16 each."""


def lanes(terms: int) -> float:
    """Relative error of a float32 sum of ``terms`` products or squares, against their magnitudes.

    Each product was itself rounded once.
    """
    return (math.ceil(terms / 32) + 5 + 1) * U * SLACK


def lcf_length(differences: Doubles, mu: Doubles, sigma: Doubles) -> Doubles:
    """Absolute error of S_l = ||(d_l - mu_l) / sigma_l||, float64 (layers,).

    An element's error: U |d| from the difference of states, U |d - mu| from subtracting mu, and
    2 U |d - mu| from the rounded inverse and its product, all over sigma. In the norm these add at
    most their own norm; the sum of squares adds half of its relative error.

    Args:
        differences: h_{l+1} - h_l, float64 (layers, width).
        mu: (layers, width).
        sigma: (layers, width).
    """
    centred = np.abs(differences - mu)
    element = U * (np.abs(differences) + 3 * centred) / sigma
    length = np.linalg.norm(centred / sigma, axis=-1)
    return SLACK * (np.linalg.norm(element, axis=-1) + lanes(mu.shape[-1]) / 2 * length)


def lcf_score(length_error: Doubles, score_scale: Doubles, precision: Doubles) -> float:
    """Absolute error of sqrt((z - c)' P (z - c)): a norm of z, so at most that norm of z's error.

    The added 1e-12 is the double form, relative to which scores are of order 1 to 1e3.
    """
    norm = math.sqrt(np.linalg.eigvalsh(precision)[-1])
    return float(norm * np.linalg.norm(length_error / score_scale)) * SLACK + 1e-12


def mean(values: Doubles) -> Doubles:
    """Absolute error of a mean over tokens, float64 (width,), by running error analysis.

    Every addition rounds its partial sum once; a block of 256 tokens starts again from zero, blocks
    are added in double, and the mean is rounded once (Higham, section 3.3).

    Args:
        values: the tokens that count, float64 (tokens, width).
    """
    blocks = range(0, len(values), 256)
    partial = sum(np.abs(np.cumsum(values[b : b + 256], axis=0)).sum(axis=0) for b in blocks)
    return SLACK * U * (partial / len(values) + np.abs(values.mean(axis=0)))


def running_mean(values: Doubles) -> Doubles:
    """Absolute error of a mean whose tokens are added in double, float64 (width,).

    Each of n additions rounds within 2^-53 of at most the sum of magnitudes; the quotient is
    rounded to float32 once.

    Args:
        values: all tokens, float64 (tokens, width).
    """
    summed = len(values) * 2.0**-53 * np.abs(values).mean(axis=0)
    return SLACK * (U * np.abs(values.mean(axis=0)) + summed)


def siren_logits(features: Doubles, weights: list[Doubles], biases: list[Doubles]) -> Doubles:
    """Absolute error of the two logits of each row, float64 (rows, 2), carried through the layers.

    Worst cases multiply along the layers and would bound nothing, so roundings count as independent
    with mean zero (Higham and Mary, "A new approach to probabilistic rounding error analysis",
    2019): variances add, and the bound is six standard deviations. A feature is rounded once. A sum
    of products x_i w_i of random sign has the variance U^2 steps sum (x_i w_i)^2, and is rounded
    once more with its bias; a linear map passes on variances through its squared weights, ReLU at
    most all of them.

    Args:
        features: float64 (rows, inputs).
        weights: (out, in) a linear map.
        biases: (out,) a linear map.
    """
    value, variance = features, (U * features) ** 2
    for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        squares = value**2 @ (weight**2).T
        value = value @ weight.T + bias
        steps = lanes(weight.shape[1]) / U
        variance = variance @ (weight**2).T + U**2 * (steps * squares + value**2)
        if index < len(weights) - 1:
            value = np.maximum(value, 0)
    return 6 * np.sqrt(variance)


def siren_score(logit_error: Doubles) -> Doubles:
    """Absolute error of softmax(logits)[1], (rows,): its slope in their difference is <= 1/4."""
    return logit_error.sum(axis=-1) / 4 + LOGIT_EXPONENTIAL


def familiarity(z: Doubles, directions: Doubles) -> Doubles:
    """Absolute error of the squared distance |z|^2 - sum_r (d_r . z)^2, computed in float64, (...).

    A sum of n products has at most n + 2 roundings of 2^-53 relative to the sum of magnitudes
    (Higham, section 3.1), for |z|^2 and for each d_r . z; squaring doubles that of the latter.

    Args:
        z: (..., width).
        directions: (directions, width).
    """
    along = np.abs(z) @ np.abs(directions).T
    roundings = 2 * (z.shape[-1] + len(directions) + 4) * 2.0**-53
    return roundings * ((z**2).sum(axis=-1) + (along**2).sum(axis=-1))


def drift(states: Doubles, base: Doubles) -> float:
    """Absolute error of (pi_s - pi_0) / N, computed in float64 from float32 states.

    Means and products sum n values with at most n roundings of 2^-53 each; projections on a unit
    vector are no longer than the states; dividing by N keeps that relative to it.

    Args:
        states: of a checkpoint, (prompts, width).
        base: of the base model, (prompts, width).
    """
    roundings = 2 * (sum(states.shape) + 4) * 2.0**-53
    length = sum(float(np.abs(array).max(initial=0)) * array.shape[1] for array in (states, base))
    norm = float(np.linalg.norm(base.astype(np.float64), axis=1).mean())
    return roundings * length / norm


def logit(products: Doubles, logits: Doubles, width: int) -> Doubles:
    """Absolute error of bias + sum over k of <w_k, h_k>, rounded to float32 once.

    Each product's error is relative to the sum of its terms' magnitudes; the sum over k is double.
    A mean of logits has at most the largest error of one, and is rounded once more.

    Args:
        products: sum over k and i of |w_ki h_ki|, float64.
        logits: float64, of the same shape.
        width: D.
    """
    return lanes(width) * products + 2 * SLACK * U * np.abs(logits)


def cosine(products: Doubles, cosines: Doubles, width: int) -> Doubles:
    """Absolute error of <u, h> / ||h||.

    The dot product's error is relative to the sum of its products' magnitudes; the length has half
    the relative error of its sum of squares; the quotient is rounded once.

    Args:
        products: sum of |u_i h_i| / ||h||, float64.
        cosines: float64, of the same shape.
        width: D.
    """
    return lanes(width) * products + SLACK * (lanes(width) / 2 + U) * np.abs(cosines)


FUSED = 1e-5
"""Of |graph - kernel| / (1 + |kernel|) of a score: what ``layerguard fuse`` promises, and checks.

Both read the same backbone on the same machine; from the pooled states on they differ in the order
in which float32 sums are added. D squares added in two orders are apart by about sqrt(D) U of their
sum (roundings independent: Higham and Mary, 2019), so a layer's length S_l by sqrt(D) / 2 U S_l:
8e-7 S_l for D = 768. LCF's score is a norm of such lengths over their spread s_l, so its own share
of this is S_l / s_l, of the order of ten, over 1 + score; 3.3e-6 is the most seen over 154 texts on
all-MiniLM-L6-v2. SIREN's logits differ by ``siren_logits``, cosines by ``cosine``: both less.
Standardisation has no bound, so neither has this; a bundle beyond it is not fused.
"""
