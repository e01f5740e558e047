"""The LCF kernel; see the package for what states are."""

from typing import Any

import numpy as np

from layerguard.runtime._kernels import ffi, lib
from layerguard.runtime.errors import InputError
from layerguard.runtime.kernels.arrays import listed, parameter
from layerguard.runtime.kernels.call import (
    Doubles,
    Layers,
    check,
    counted,
    in_place,
    pointer,
    row_count,
    width_error,
)
from layerguard.runtime.types import Array


class LcfKernel:
    """Layerwise convergence fingerprint of many rows.

    S_l = ||(h_{l+1} - h_l - mu_l) / sigma_l||, z_l = (S_l - m_l) / s_l,
    score = sqrt((z - c)' P (z - c)). Source: LCF, arXiv 2604.24542.

    Args:
        mu: mean difference of neighbouring states, float32 (L, D).
        sigma: its standard deviation, > 0, float32 (L, D); 1 / sigma is rounded to float32 once.
        score_mean: m, float64 (L,).
        score_scale: s, > 0, float64 (L,).
        centre: c, float64 (L,).
        precision: P, positive semidefinite, float64 (L, L).

    Raises:
        InputError: parameters of wrong shape, not finite, or a scale that is not positive; every
            fault is listed.
    """

    def __init__(
        self,
        mu: Array,
        sigma: Array,
        score_mean: Array,
        score_scale: Array,
        centre: Array,
        precision: Array,
    ) -> None:
        faults: list[str] = []
        depth, width = np.shape(mu) if np.ndim(mu) == 2 else (0, 0)
        singles = [
            parameter(faults, name, value, np.float32, (depth, width), positive=positive)
            for name, value, positive in (("mu", mu, False), ("sigma", sigma, True))
        ]
        doubles = [
            parameter(faults, name, value, np.float64, shape, positive=positive)
            for name, value, shape, positive in (
                ("score_mean", score_mean, (depth,), False),
                ("score_scale", score_scale, (depth,), True),
                ("centre", centre, (depth,), False),
                ("precision", precision, (depth, depth), False),
            )
        ]
        if depth == 0 or width == 0:
            faults.append(f"mu: found shape {np.shape(mu)}, expected (layers, width), both >= 1")
        if faults:
            raise InputError(listed("LCF parameters", faults))
        with np.errstate(over="ignore"):
            singles[1] = (1.0 / singles[1].astype(np.float64)).astype(np.float32)
        if not np.isfinite(singles[1]).all():
            raise InputError("LCF sigma: found a value below 3e-39, whose inverse no float32 holds")
        self.layer_count, self.width = depth, width
        self._parameters = [pointer("float[]", array) for array in singles]
        self._parameters += [pointer("double[]", array) for array in doubles]
        self._model = ffi.new("lg_lcf *", [depth, width, *self._parameters])

    def score(self, layers: Layers) -> tuple[Doubles, Doubles]:
        """Score every row.

        Args:
            layers: L + 1 states, each (rows, D); see the module. A row is one text's read token.

        Returns:
            scores, float64 (rows,), unitless, >= 0, and z, float64 (rows, L), both not finite
            where the row's states are not.

        Raises:
            InputError: the states' number, shape, dtype or layout is not what the model takes.
        """
        return in_place(self._attempt, counted(layers, self.layer_count + 1))

    def _attempt(self, arrays: tuple[Any, ...]) -> tuple[Doubles, Doubles] | None:
        """Scores and z, or None if the arrays are not what the C core reads in place."""
        rows = row_count(arrays)
        scores, z = np.empty(rows), np.empty((rows, self.layer_count))
        status = lib.lg_lcf_arrays(self._model, id(arrays), id(scores), id(z))
        if status == lib.LG_NOT_PLAIN:
            return None
        if status == lib.LG_ERR_SHAPE:
            raise width_error(arrays, str(self.width))
        check(status, "LCF")
        return scores, z
