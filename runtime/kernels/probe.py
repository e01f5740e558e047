"""A linear probe on every token, and the window of tokens with the largest mean logit."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from layerguard.runtime._kernels import ffi, lib
from layerguard.runtime.errors import InputError
from layerguard.runtime.kernels.arrays import listed, parameter
from layerguard.runtime.kernels.call import (
    Layers,
    Singles,
    check,
    check_per_token,
    chosen_states,
    in_place,
    pointer,
    row_count,
    width_error,
)
from layerguard.runtime.types import Array

_FIRST: int = lib.LG_WINDOW_FIRST
_TOKENS: int = lib.LG_WINDOW_TOKENS
_LOGITS: int = lib.LG_WINDOW_LOGITS


class ProbeKernel:
    """A probe, and the window of a text's tokens with the largest mean logit.

    logit_t = bias + sum over k of <w_k, h_{layer k}[t]>; the best window is the largest mean of
    ``window`` neighbouring logits, or the mean of all tokens of a shorter text.

    Args:
        weights: w, float32 (K, D), one row for each state that is read.
        layers: index of the state of each row, ascending, each once, int (K,).
        bias: added to every logit.
        window: tokens, 1 to 4096.

    Raises:
        InputError: a wrong shape or dtype, not finite, layers below 0 or not ascending, or a window
            outside of its bounds; every fault is listed.

    Attributes:
        layers: the states that are read, ascending.
        window: tokens of a window.
        floats: K of a row of windows, float32 (floats,).
    """

    def __init__(self, weights: Array, layers: Array, bias: float, window: int) -> None:
        faults: list[str] = []
        count, width = np.shape(weights) if np.ndim(weights) == 2 else (0, 0)
        if count == 0 or width == 0:
            shape = np.shape(weights)
            faults.append(f"weights: found shape {shape}, expected (count, width), both >= 1")
        rows = parameter(faults, "weights", weights, np.float32, (count, width))
        indices = parameter(faults, "layers", layers, np.intc, (count,))
        if (indices < 0).any() or (np.diff(indices) <= 0).any():
            faults.append("layers: found an index below 0 or not ascending, expected each once")
        if not np.isfinite(bias):
            faults.append(f"bias: found {bias}, expected a finite number")
        if not 1 <= window <= lib.LG_LONGEST_WINDOW:
            faults.append(f"window: found {window}, expected 1 to {lib.LG_LONGEST_WINDOW} tokens")
        if faults:
            raise InputError(listed("probe", faults))
        self.layers: tuple[int, ...] = tuple(indices.tolist())
        self.window = int(window)
        self.floats = _LOGITS + self.window
        self._width = width
        # the kernel receives only the chosen states, so state i of them has index i
        fields = {
            "states_needed": count,
            "width": width,
            "chosen_count": count,
            "layers": pointer("int[]", np.arange(count, dtype=np.intc)),
            "weights": pointer("float[]", rows),
            "bias": float(bias),
            "window": self.window,
        }
        self._arguments = weights, layers, float(bias), self.window
        self._parameters = fields
        self._model = ffi.new("lg_probe *", fields)
        check(lib.lg_probe_check(self._model), "probe")

    def __reduce__(self) -> tuple[type[Self], tuple[Array, Array, float, int]]:
        """What pickle keeps: the parameters, which are bound again."""
        return type(self), self._arguments

    def windows(
        self,
        states: Layers | Mapping[int, Array],
        mask: Array | None = None,
        into: Singles | None = None,
    ) -> Singles:
        """The best window of a text, and what is needed to continue the text.

        Args:
            states: of one text, each (tokens, D); see the package. Only the states ``layers`` are
                read, so a mapping of these is sufficient.
            mask: bool or integer (tokens,), zero where a token is ignored; None: no token is.
            into: windows of the text's earlier tokens, which are updated and returned.

        Returns:
            float32 (floats,): the largest mean, the number of its first token, the number of
            tokens, and the last logits. The mean is NaN, permanently, after a logit that is not
            finite.

        Raises:
            InputError: a state is missing, or a shape, dtype or layout does not match the probe.
        """
        arrays = chosen_states(states, self.layers)
        mask_bytes = None if mask is None else np.ascontiguousarray(np.asarray(mask) != 0)
        windows = np.zeros(self.floats, np.float32) if into is None else into
        if windows.shape != (self.floats,) or windows.dtype != np.float32:
            raise InputError(
                f"into: found {windows.dtype} {windows.shape}, expected float32 ({self.floats},): "
                "start without it"
            )

        def attempt(plain: tuple[Any, ...]) -> Singles | None:
            """The windows, or None if the C core cannot read the arrays in place."""
            check_per_token("mask", mask_bytes, row_count(plain))
            status = lib.lg_windows_arrays(
                self._model, id(plain), 0 if mask_bytes is None else id(mask_bytes), id(windows)
            )
            if status == lib.LG_NOT_PLAIN:
                return None
            if status == lib.LG_ERR_SHAPE:
                raise width_error(plain, str(self._width))
            check(status, "probe")
            return windows

        return in_place(attempt, arrays)

    def place(self, windows: Singles) -> tuple[int, int]:
        """The first token of the best window, and the token after its last one."""
        first, tokens = int(windows[_FIRST]), int(windows[_TOKENS])
        return first, min(first + self.window, tokens)
