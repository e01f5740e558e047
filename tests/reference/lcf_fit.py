"""LCF's calibration with the states of all rows in memory, one layer after the other.

Source: "Layerwise Convergence Fingerprints", arXiv 2604.24542, section "Method"; every held-out
score comes from a refit of everything without the row's fold. Differences are taken in float32, as
published, and all else is float64.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from sklearn.covariance import LedoitWolf

from tests.reference import lcf

Doubles = npt.NDArray[np.float64]
States = npt.NDArray[np.float32]
Floor = Callable[[Doubles], Doubles]


def parameters(states: States, floor: Floor) -> tuple[dict[str, Doubles], Doubles]:
    """The frozen parameters, and Z (rows, L), of states (rows, L + 1, D)."""
    layers, length = [], []
    for layer in range(states.shape[1] - 1):
        x = _difference(states, layer)
        mu, sigma = (a.astype(np.float32) for a in (x.mean(axis=0), floor(x.std(axis=0))))
        layers.append((mu, sigma))
        length.append(np.linalg.norm((x - mu) / sigma, axis=1))
    s = np.stack(length, axis=1)
    mean, scale, centre, precision = _aggregate(s)
    mu, sigma = (np.stack(arrays) for arrays in zip(*layers, strict=True))
    found = {
        "mu": mu,
        "sigma": sigma,
        "score_mean": mean,
        "score_scale": scale,
        "centre": centre,
        "precision": precision,
    }
    return found, lcf.z_scores(s, mean, scale)


def held_out(states: States, folds: npt.NDArray[np.int64], floor: Floor) -> Doubles:
    """The score of each row, (rows,), by a refit without its fold."""
    rests = [folds != fold for fold in np.unique(folds)]
    s = np.empty((len(rests), len(states), states.shape[1] - 1))
    for layer in range(s.shape[2]):
        x = _difference(states, layer)
        for fold, rest in enumerate(rests):
            mu, sigma = x[rest].mean(axis=0), floor(x[rest].std(axis=0))
            s[fold, :, layer] = np.linalg.norm((x - mu) / sigma, axis=1)
    scores = np.empty(len(states))
    for length, rest in zip(s, rests, strict=True):
        mean, scale, centre, precision = _aggregate(length[rest])
        scores[~rest] = lcf.scores(lcf.z_scores(length[~rest], mean, scale), centre, precision)
    return scores


def published(z: Doubles) -> Doubles:
    """The published leave-one-out scores, (rows,), of Z (rows, L)."""
    scores = []
    for row in range(len(z)):
        rest = np.delete(z, row, axis=0)
        precision = LedoitWolf().fit(rest).precision_
        scores.append(lcf.scores(z[row : row + 1], rest.mean(axis=0), precision)[0])
    return np.array(scores)


def _difference(states: States, layer: int) -> Doubles:
    return (states[:, layer + 1] - states[:, layer]).astype(np.float64)


def _aggregate(s: Doubles) -> tuple[Doubles, Doubles, Doubles, Doubles]:
    """Mean, scale, centre and precision of lengths (rows, L)."""
    mean, scale = s.mean(axis=0), np.maximum(s.std(axis=0), 1e-8)
    z = lcf.z_scores(s, mean, scale)
    return mean, scale, z.mean(axis=0), LedoitWolf().fit(z).precision_
