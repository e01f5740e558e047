"""Ledoit-Wolf shrinkage as the paper writes it, in float64 and loops.

Source: Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices",
Journal of Multivariate Analysis 88 (2004), section 3.2: m_n, d_n^2, b_n^2 of lemmas 3.2 to 3.4,
with norms divided by the number of variables as in their section 2.1.
"""

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]


def covariance(rows: npt.ArrayLike) -> Doubles:
    """The shrunk covariance (p, p) of rows (n, p)."""
    x = np.asarray(rows, np.float64)
    n, p = x.shape
    x = x - x.mean(axis=0)
    sample = sum(np.outer(row, row) for row in x) / n
    mu = np.trace(sample) / p
    d2 = np.sum((sample - mu * np.eye(p)) ** 2) / p
    b2 = sum(np.sum((np.outer(row, row) - sample) ** 2) for row in x) / (n**2 * p)
    b2 = min(b2, d2)
    rho = 0.0 if d2 == 0 else b2 / d2
    shrunk: Doubles = rho * mu * np.eye(p) + (1 - rho) * sample
    return shrunk
