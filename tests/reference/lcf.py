"""LCF's score as its paper writes it, in float64.

Source: "Layerwise Convergence Fingerprints", arXiv 2604.24542, section "Method". For rows of states
h_0 ... h_L:  S_l = ||(h_{l+1} - h_l - mu_l) / sigma_l||_2,  z_l = (S_l - m_l) / s_l,
score = sqrt((z - c)' P (z - c)).
"""

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]


def lengths(states: npt.ArrayLike, mu: npt.ArrayLike, sigma: npt.ArrayLike) -> Doubles:
    """S, (rows, L), of states (L + 1, rows, D) with mu and sigma (L, D)."""
    h, centre, scale = (np.asarray(value, np.float64) for value in (states, mu, sigma))
    difference = np.diff(h, axis=0)
    return np.linalg.norm((difference - centre[:, None]) / scale[:, None], axis=-1).T


def z_scores(length: Doubles, score_mean: npt.ArrayLike, score_scale: npt.ArrayLike) -> Doubles:
    """z, (rows, L), of lengths (rows, L)."""
    return (length - np.asarray(score_mean)) / np.asarray(score_scale)


def scores(z: Doubles, centre: npt.ArrayLike, precision: npt.ArrayLike) -> Doubles:
    """The score of each row, (rows,), of z (rows, L)."""
    offset = z - np.asarray(centre)
    return np.sqrt(np.einsum("ni,ij,nj->n", offset, np.asarray(precision), offset))
