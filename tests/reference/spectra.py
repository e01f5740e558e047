"""Directions that tuning added, in float64, by full SVD: "Watch the Weights", arXiv 2508.00161."""

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]


def directions(base: npt.ArrayLike, tuned: npt.ArrayLike, count: int) -> tuple[Doubles, Doubles]:
    """Singular values (count,) and left singular vectors as rows (count, width) of tuned - base."""
    change = np.asarray(tuned, np.float64) - np.asarray(base, np.float64)
    vectors, values, _ = np.linalg.svd(change, full_matrices=False)
    return values[:count], vectors.T[:count]


def lora(a: npt.ArrayLike, b: npt.ArrayLike, alpha: float, rank: int) -> Doubles:
    """(alpha / r) B A: "LoRA", arXiv 2106.09685, section 4.1."""
    return alpha / rank * (np.asarray(b, np.float64) @ np.asarray(a, np.float64))
