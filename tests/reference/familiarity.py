"""The distance of familiarity by the covariance matrix, in float64.

Tipping and Bishop, "Probabilistic Principal Component Analysis", 1999, equation 7: the covariance
is W W' + s^2 I. The distance is that of Mahalanobis to the nearest of the centres.
"""

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]


def scores(
    states: npt.ArrayLike, centres: npt.ArrayLike, scale: npt.ArrayLike, directions: npt.ArrayLike
) -> Doubles:
    """(rows,) of pooled states (rows, D), centres (K, D), scale (D) and directions (R, D).

    The inverse covariance of (x - centre) / scale is I - sum_r d_r d_r'.
    """
    x, c, s, d = (np.asarray(item, np.float64) for item in (states, centres, scale, directions))
    precision = np.eye(x.shape[1]) - d.T @ d
    z = (x[:, None] - c) / s
    squares = np.einsum("nki,ij,nkj->nk", z, precision, z)
    return np.sqrt(np.maximum(squares, 0).min(axis=1))


def covariance_fit(x: npt.ArrayLike, rank: int) -> tuple[Doubles, Doubles]:
    """Mean (D) and covariance (D, D) of the maximum-likelihood model; elements have unit variance.

    Equations 12 and 13: the leading eigenvectors keep their variances, all others the mean of the
    remaining ones.
    """
    rows = np.asarray(x, np.float64)
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    z = (rows - mean) / deviation
    values, vectors = np.linalg.eigh(z.T @ z / len(z))
    beside = values[: len(values) - rank].mean()
    values = np.where(np.arange(len(values)) < len(values) - rank, beside, values)
    inner = (vectors * values) @ vectors.T
    return mean, inner * np.outer(deviation, deviation)
