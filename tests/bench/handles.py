"""A scoring call of the C core with everything bound: what a service in C pays for each call."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from layerguard.runtime._kernels import ffi, lib
from layerguard.runtime.kernels import DirectionsKernel
from tests.kernel_cases import Array
from tests.scorers import LcfKernel, SirenKernel

DTYPES = {"float32": lib.LG_F32, "float16": lib.LG_F16, "uint16": lib.LG_BF16}


def lcf_handle(kernel: LcfKernel, states: Array) -> Callable[[], int]:
    """``lg_lcf_score`` on states (L + 1, rows, width), C-contiguous; it returns the status."""
    rows = states.shape[1]
    outputs = np.empty(rows), np.empty((rows, kernel.layer_count))
    model = _lcf(kernel.params)
    fields = {
        "model": model,
        "states": _describe(states),
        "scores": ffi.from_buffer("double[]", outputs[0]),
        "z": ffi.from_buffer("double[]", outputs[1]),
    }
    return _bound(lib.lg_lcf_score, ffi.new("lg_lcf_call *", fields), (model, states, fields))


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
    model = _siren(kernel.params)
    workspace = np.empty(lib.lg_siren_workspace(model, rows), np.float32)
    fields = {
        "model": model,
        "states": _describe(states),
        "scores": ffi.from_buffer("double[]", np.empty(rows)),
        "workspace": ffi.from_buffer("float[]", workspace),
        "workspace_count": workspace.size,
    }
    return _bound(lib.lg_siren_score, ffi.new("lg_siren_call *", fields), (model, states, fields))


_KEPT: list[object] = []
"""What models point to; a benchmark makes few of them."""


def _struct(name: str, fields: Mapping[str, object]) -> Any:
    _KEPT.append(fields)
    return ffi.new(f"{name} *", dict(fields))


def _pointer(kind: str, array: Array) -> Any:
    return ffi.from_buffer(f"{kind}[]", array)


def _lcf(params: Mapping[str, Array]) -> Any:
    """``lg_lcf`` of LCF's parameters."""
    depth, width = params["mu"].shape
    inverse = (1.0 / params["sigma"].astype(np.float64)).astype(np.float32)
    fields = {"layer_count": depth, "width": width, "mu": _pointer("float", params["mu"])}
    fields["inverse_sigma"] = _pointer("float", inverse)
    for name in ("score_mean", "score_scale", "centre", "precision"):
        fields[name] = _pointer("double", params[name])
    return _struct("lg_lcf", fields)


def _siren(params: Mapping[str, Array]) -> Any:
    """``lg_siren`` of SIREN's parameters."""
    count = sum(name.startswith("weight_") for name in params)
    weights = [_pointer("float", params[f"weight_{m}"]) for m in range(count)]
    biases = [_pointer("float", params[f"bias_{m}"]) for m in range(count)]
    widths = [params["neurons"].size, *(params[f"bias_{m}"].size for m in range(count))]
    fields = {
        "states_needed": 1 + int(params["layers"].max()),
        "width_needed": 1 + int(params["neurons"].max()),
        "chosen_count": params["layers"].size,
        "linear_count": count,
        "widths": ffi.new("size_t[]", widths),
        "weights": ffi.new("float const *[]", weights),
        "biases": ffi.new("float const *[]", biases),
        "alpha": _pointer("float", params["alpha"]),
    }
    for name in ("layers", "neuron_offsets", "neurons"):
        fields[name] = _pointer("int", params[name])
    return _struct("lg_siren", fields)


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
