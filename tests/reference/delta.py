"""What tuning adds to a text, in float64, as the formulas say.

The length |dW v_t| is that of the change of a matrix applied to its input, at each token t. dW is
B A times alpha / r of a low-rank adapter (Hu et al., "LoRA", 2021, section 4.1), or the difference
of two checkpoints. The score is the largest standardised value: max_k (x_k - centre_k) / scale_k.
"""

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
FLOOR = 1e-6


def value(inputs: npt.ArrayLike, change: npt.ArrayLike) -> float:
    """The value of one text: inputs (tokens, D) of a matrix and its change (outputs, D)."""
    added = np.asarray(inputs, np.float64) @ np.asarray(change, np.float64).T
    return float(np.log(np.maximum(np.linalg.norm(added, axis=1), FLOOR)).max())


def excess(values: npt.ArrayLike, centre: npt.ArrayLike, scale: npt.ArrayLike) -> Doubles:
    """(rows, K) of values (rows, K), centre (K) and scale (K)."""
    x, c, s = (np.asarray(item, np.float64) for item in (values, centre, scale))
    return (x - c) / s


def scores(values: npt.ArrayLike, centre: npt.ArrayLike, scale: npt.ArrayLike) -> Doubles:
    """(rows,); NaN where a value is not finite."""
    finite = np.isfinite(values).all(axis=-1)
    largest: Doubles = excess(np.where(np.isfinite(values), values, 0), centre, scale).max(axis=-1)
    return np.where(finite, largest, np.nan)
