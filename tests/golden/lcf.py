"""LCF vectors of the project's own: states, and what the float64 oracle makes of them.

    python -m tests.golden.lcf    # writes tests/golden/lcf.json anew

Thirty clean and six other prompts of a model of five blocks and width eight. One dimension does not
move in one block, but for the last prompt, so that the floors of sigma matter. The last two prompts
are outliers.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.reference import lcf, ledoit_wolf

Doubles = npt.NDArray[np.float64]

FILE = Path(__file__).with_suffix(".json")
LAYERS, WIDTH, CLEAN, OTHERS = 5, 8, 30, 6
TARGET_FPR, FOLDS, SEED = 0.1, 20, 7
STEP = 2.0**-10
"""All states are multiples of it, so that float32 holds them and their differences exactly."""

ABSOLUTE_FLOOR, RELATIVE_FLOOR, LEAST_THRESHOLD = 1e-8, 1e-3, 1.0


def draw() -> tuple[Doubles, Doubles]:
    """The states of the clean and of the other prompts, [rows, LAYERS + 1, WIDTH]."""
    rng = np.random.default_rng(SEED)
    rows = CLEAN + OTHERS
    moves = rng.normal(size=(rows, LAYERS + 1, WIDTH)) * np.exp(0.1 * rng.normal(size=(rows, 1, 1)))
    moves[-2:, 2:] *= 3.0
    moves[:, 3, 2] = 0.0
    moves[-1, 3, 2] = 2 * STEP
    states = np.round(np.cumsum(moves, axis=1) / STEP) * STEP
    return states[:CLEAN], states[CLEAN:]


def vectors(clean: Doubles, others: Doubles) -> dict[str, Any]:
    """Parameters, thresholds and scores in both modes.

    Source: arXiv 2604.24542, section "Method"; ``docs/detectors/lcf.md`` for ``cross-fit``.

    Args:
        clean: float64 [rows, layers + 1, width].
        others: the same of prompts that are only scored.
    """
    return {
        "reference": {**_scored(clean, others, 0.0), **_published(clean)},
        "cross-fit": {**_scored(clean, others, RELATIVE_FLOOR), **_cross_fitted(clean)},
    }


def _fit(states: Doubles, floor: float) -> dict[str, Doubles]:
    """The six arrays of a fit on these rows."""
    difference = np.diff(states, axis=1)
    mu, deviation = difference.mean(axis=0), difference.std(axis=0)
    typical = np.median(deviation, axis=1, keepdims=True)
    sigma = np.maximum(deviation, np.maximum(floor * typical, ABSOLUTE_FLOOR))
    length = lcf.lengths(states.swapaxes(0, 1), mu, sigma)
    mean, scale = length.mean(axis=0), np.maximum(length.std(axis=0), ABSOLUTE_FLOOR)
    z = lcf.z_scores(length, mean, scale)
    return {
        "mu": mu,
        "sigma": sigma,
        "score_mean": mean,
        "score_scale": scale,
        "centre": z.mean(axis=0),
        "precision": np.linalg.inv(ledoit_wolf.covariance(z)),
    }


def _z(states: Doubles, fit: dict[str, Doubles]) -> Doubles:
    length = lcf.lengths(states.swapaxes(0, 1), fit["mu"], fit["sigma"])
    return lcf.z_scores(length, fit["score_mean"], fit["score_scale"])


def _scores(states: Doubles, fit: dict[str, Doubles]) -> Doubles:
    return lcf.scores(_z(states, fit), fit["centre"], fit["precision"])


def _scored(clean: Doubles, others: Doubles, floor: float) -> dict[str, Any]:
    """The parameters, and z and score of the other prompts."""
    fit = _fit(clean, floor)
    return {"params": fit, "z": _z(others, fit), "scores": _scores(others, fit)}


def _published(clean: Doubles) -> dict[str, Any]:
    """Scores without the row in centre and precision alone, and the percentile of them."""
    z = _z(clean, _fit(clean, 0.0))
    held_out = []
    for row in range(len(z)):
        rest = np.delete(z, row, axis=0)
        precision = np.linalg.inv(ledoit_wolf.covariance(rest))
        held_out.append(lcf.scores(z[row : row + 1], rest.mean(axis=0), precision)[0])
    limit = np.percentile(held_out, 100 * (1 - TARGET_FPR))
    return {"clean_scores": np.sort(held_out), "threshold": max(float(limit), LEAST_THRESHOLD)}


def _cross_fitted(clean: Doubles) -> dict[str, Any]:
    """Scores by fits without the row's fold, and the k-th smallest of them."""
    folds = np.random.default_rng(SEED).permutation(len(clean)) % FOLDS
    held_out = np.empty(len(clean))
    for fold in range(FOLDS):
        held = folds == fold
        held_out[held] = _scores(clean[held], _fit(clean[~held], RELATIVE_FLOOR))
    ordered = np.sort(held_out)
    rank = int(np.ceil((len(clean) + 1) * (1 - TARGET_FPR)))
    return {"clean_scores": ordered, "threshold": float(ordered[rank - 1])}


def read() -> dict[str, Any]:
    """What the committed file holds."""
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value


if __name__ == "__main__":
    drawn = draw()
    content = {"clean": drawn[0], "others": drawn[1], **vectors(*drawn)}
    FILE.write_text(json.dumps(_plain(content)) + "\n", encoding="utf-8")
    print(f"wrote {FILE}")
