"""Delta's calibration in textbook form, one matrix after the other, with exactly rounded sums.

This project's own method. Parameters are rounded to float32, as a bundle stores them; all else is
float64.
"""

import math
from statistics import median

import numpy as np
import numpy.typing as npt

Singles = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


def parameters(values: Singles) -> tuple[Singles, Singles]:
    """Centre and scale (K,) of values (rows, K)."""
    columns = values.astype(np.float64).T.tolist()
    deviations = [_deviation(column) for column in columns]
    typical = median(deviations)
    centre = [median(column) for column in columns]
    scale = [max(deviation + typical, 1e-3) for deviation in deviations]
    return np.array(centre, np.float32), np.array(scale, np.float32)


def held_out(values: Singles, fold_of: list[int]) -> Doubles:
    """The score (rows,) of each row by parameters of the rows of all other folds."""
    folds = np.array(fold_of)
    scores = []
    for row, fold in zip(values, fold_of, strict=True):
        centre, scale = parameters(values[folds != fold])
        deviations = [
            (float(x) - float(c)) / float(s) for x, c, s in zip(row, centre, scale, strict=True)
        ]
        scores.append(max(deviations))
    return np.array(scores)


def _deviation(column: list[float]) -> float:
    """The population's standard deviation."""
    mean = math.fsum(column) / len(column)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in column) / len(column))
