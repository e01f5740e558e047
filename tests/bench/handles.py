"""A scoring call of the C core with everything bound: what a service in C pays for each call."""

from collections.abc import Callable
from functools import partial

import numpy as np

from layerguard.runtime._kernels import ffi, lib
from layerguard.runtime.kernels import DirectionsKernel, LcfKernel, SirenKernel
from tests.kernel_cases import Array

DTYPES = {"float32": lib.LG_F32, "float16": lib.LG_F16, "uint16": lib.LG_BF16}


def lcf_handle(kernel: LcfKernel, states: Array) -> Callable[[], int]:
    """``lg_lcf_score`` on states (L + 1, rows, width), C-contiguous; it returns the status."""
    rows = states.shape[1]
    outputs = np.empty(rows), np.empty((rows, kernel.layer_count))
    fields = {
        "model": kernel._model,
        "states": _describe(states),
        "scores": ffi.from_buffer("double[]", outputs[0]),
        "z": ffi.from_buffer("double[]", outputs[1]),
    }
    return _bound(lib.lg_lcf_score, ffi.new("lg_lcf_call *", fields), (kernel, states, fields))


def extremes_handle(kernel: DirectionsKernel, states: Array) -> Callable[[], int]:
    """``lg_extremes`` on float32 states (L + 1, tokens, width), C-contiguous, all the user's."""
    read = np.ascontiguousarray(states[list(kernel.layers)])
    fields = {
        "model": kernel._model,
        "states": _describe(read),
        "extremes": ffi.from_buffer("float[]", kernel.untouched()),
    }
    return _bound(lib.lg_extremes, ffi.new("lg_extremes_call *", fields), (kernel, read, fields))


def siren_handle(kernel: SirenKernel, states: Array) -> Callable[[], int]:
    """``lg_siren_score`` on pooled states (L + 1, rows, width), C-contiguous."""
    rows = states.shape[1]
    workspace = np.empty(lib.lg_siren_workspace(kernel._model, rows), np.float32)
    fields = {
        "model": kernel._model,
        "states": _describe(states),
        "scores": ffi.from_buffer("double[]", np.empty(rows)),
        "workspace": ffi.from_buffer("float[]", workspace),
        "workspace_count": workspace.size,
    }
    return _bound(lib.lg_siren_score, ffi.new("lg_siren_call *", fields), (kernel, states, fields))


def _describe(states: Array) -> dict[str, object]:
    return {
        "base": ffi.from_buffer(states),
        "layer_stride": states.strides[0],
        "row_stride": states.strides[1],
        "layer_count": states.shape[0],
        "rows": states.shape[1],
        "width": states.shape[2],
        "dtype": DTYPES[states.dtype.name],
    }


def _bound(function: Callable[..., int], call: object, kept: object) -> Callable[[], int]:
    """The function with its call; what it points to lives as long."""
    assert function(call) == lib.LG_OK
    bound = partial(function, call)
    bound.kept = kept  # type: ignore[attr-defined]
    return bound
