"""The C core from Python: LCF scores, SIREN scores and pooling. The one file that knows cffi.

Frozen parameters become pointers once, when a kernel is made. States are read where they lie:
layers are never stacked, rows may have any stride, and the GIL is free while C computes. One kernel
object serves any number of threads: a call writes to memory of its own.

States are a sequence of arrays, one a layer, each (rows, width) and of one dtype: float32, float16
or bfloat16 (a numpy array of dtype ``bfloat16``, or ``uint16`` holding its bits), or one array
(layers, rows, width). Objects with ``__dlpack__`` are read through it. The result depends on the
values alone: not on dtype, stride, batch, thread or instruction set.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from layerguard.runtime._kernels import ffi, lib
from layerguard.runtime.arrays import listed, parameter, plain
from layerguard.runtime.errors import InputError, MachineError
from layerguard.runtime.types import Array

Layers = Sequence[Array] | Array
Doubles = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]
T = TypeVar("T")


def level() -> str:
    """The instruction set in use: ``x86-64``, ``x86-64-v3``, ``x86-64-v4`` or ``portable``.

    Chosen at the first call: what ``LAYERGUARD_LEVEL`` names, else the best this processor runs.

    Raises:
        MachineError: ``LAYERGUARD_LEVEL`` names a level that is unknown or that cannot run here.
    """
    name = ffi.new("char const **")
    _check(lib.lg_level(name), "level")
    return str(ffi.string(name[0]).decode())


def set_level(name: str | None) -> None:
    """Choose the instruction set for this process; None chooses as the first call would.

    Raises:
        MachineError: the name is unknown, or this processor cannot run it.
    """
    _check(lib.lg_set_level(ffi.NULL if name is None else name.encode()), f"level {name!r}")


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
        self._parameters = [_pointer("float[]", array) for array in singles]
        self._parameters += [_pointer("double[]", array) for array in doubles]
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
        return _in_place(self._attempt, _counted(layers, self.layer_count + 1))

    def _attempt(self, arrays: tuple[Any, ...]) -> tuple[Doubles, Doubles] | None:
        """Scores and z, or None if the arrays are not what the C core reads in place."""
        rows = _rows(arrays)
        scores, z = np.empty(rows), np.empty((rows, self.layer_count))
        status = lib.lg_lcf_arrays(self._model, id(arrays), id(scores), id(z))
        if status == lib.LG_NOT_PLAIN:
            return None
        if status == lib.LG_ERR_SHAPE:
            raise _width_error(arrays, str(self.width))
        _check(status, "LCF")
        return scores, z


class SirenKernel:
    """SIREN's chosen neurons and its small network: the probability that a text is harmful.

    features = concat_i alpha_i * h_{layers_i}[neurons_i]; linear maps with ReLU between them;
    score = softmax(logits)[1]. Source: SIREN, arXiv 2604.18519.

    Args:
        layers: index of each state that is read, int (K,).
        neuron_offsets: int (K + 1,); neurons of layer i are [offsets_i, offsets_{i+1}).
        neurons: index within a row, int (offsets_K,).
        alpha: layer weights, float32 (K,).
        weights: one float32 (out, in) a linear map; the last has 2 outputs, index 0 safe.
        biases: one float32 (out,) a linear map.

    Raises:
        InputError: shapes that do not fit together, an index below 0, a value that is not finite.
    """

    def __init__(
        self,
        layers: Array,
        neuron_offsets: Array,
        neurons: Array,
        alpha: Array,
        weights: Sequence[Array],
        biases: Sequence[Array],
    ) -> None:
        faults: list[str] = []
        chosen, count = np.size(layers), np.size(neurons)
        widths = [count, *(np.size(bias) for bias in biases)]
        indices = [
            parameter(faults, name, value, np.intc, shape)
            for name, value, shape in (
                ("layers", layers, (chosen,)),
                ("neuron_offsets", neuron_offsets, (chosen + 1,)),
                ("neurons", neurons, (count,)),
            )
        ]
        scales = parameter(faults, "alpha", alpha, np.float32, (chosen,))
        if len(weights) != len(biases):
            faults.append(f"found {len(weights)} weights and {len(biases)} biases, expected equal")
        matrices = [
            parameter(faults, f"weight_{m}", value, np.float32, (widths[m + 1], widths[m]))
            for m, value in enumerate(weights[: len(biases)])
        ]
        vectors = [
            parameter(faults, f"bias_{m}", value, np.float32, (widths[m + 1],))
            for m, value in enumerate(biases)
        ]
        if faults:
            raise InputError(listed("SIREN parameters", faults))
        self.states_needed = 1 + int(indices[0].max(initial=-1))
        self.width_needed = 1 + int(indices[2].max(initial=-1))
        weight_pointers = [_pointer("float[]", array) for array in matrices]
        bias_pointers = [_pointer("float[]", array) for array in vectors]
        fields = {
            "states_needed": self.states_needed,
            "width_needed": self.width_needed,
            "chosen_count": chosen,
            "layers": _pointer("int[]", indices[0]),
            "neuron_offsets": _pointer("int[]", indices[1]),
            "neurons": _pointer("int[]", indices[2]),
            "alpha": _pointer("float[]", scales),
            "linear_count": len(matrices),
            "widths": ffi.new("size_t[]", widths),
            "weights": ffi.new("float *[]", weight_pointers),
            "biases": ffi.new("float *[]", bias_pointers),
        }
        self._parameters = (fields, weight_pointers, bias_pointers)
        self._model = ffi.new("lg_siren *", fields)
        _check(lib.lg_siren_check(self._model), "SIREN parameters")

    def score(self, layers: Layers) -> Doubles:
        """Score every row.

        Args:
            layers: at least ``states_needed`` states, each (rows, width); see the module. A row is
                the mean over one text's tokens.

        Returns:
            Probability of harm, float64 (rows,), 0 to 1; NaN where a value that is read is not
            finite.

        Raises:
            InputError: the states' number, shape, dtype or layout is not what the model takes.
        """
        arrays = _counted(tuple(layers)[: self.states_needed], self.states_needed)
        return _in_place(self._attempt, arrays)

    def _attempt(self, arrays: tuple[Any, ...]) -> Doubles | None:
        """The scores, or None if the arrays are not what the C core reads in place."""
        rows = _rows(arrays)
        scores = np.empty(rows)
        workspace = np.empty(lib.lg_siren_workspace(self._model, rows), np.float32)
        status = lib.lg_siren_arrays(self._model, id(arrays), id(scores), id(workspace))
        if status == lib.LG_NOT_PLAIN:
            return None
        if status == lib.LG_ERR_SHAPE:
            raise _width_error(arrays, f"at least {self.width_needed}")
        _check(status, "SIREN")
        return scores


def pool_mean(layers: Layers, mask: Array | None = None) -> Singles:
    """Mean over the tokens that ``mask`` keeps, of every layer of one text.

    Args:
        layers: states, each (tokens, width); see the module.
        mask: bool or integer (tokens,), zero where a token does not count; None counts all.

    Returns:
        float32 (layers, width).

    Raises:
        InputError: wrong shape, dtype or layout, or a mask that keeps nothing.
    """
    return _pool(layers, mask, mean=True)


def pool_last(layers: Layers, mask: Array | None = None) -> Singles:
    """The last token that ``mask`` keeps, of every layer of one text; see ``pool_mean``."""
    return _pool(layers, mask, mean=False)


def _pool(layers: Layers, mask: Array | None, *, mean: bool) -> Singles:
    kept = None if mask is None else np.ascontiguousarray(np.asarray(mask) != 0)
    mask_id = 0 if kept is None else id(kept)

    def attempt(arrays: tuple[Any, ...]) -> Singles | None:
        """The pooled states, or None if the arrays are not what the C core reads in place."""
        shape = getattr(arrays[0], "shape", ())
        pooled = np.empty((len(arrays), *shape[1:]), np.float32)
        workspace = np.empty(shape[1:]) if mean else None
        workspace_id = 0 if workspace is None else id(workspace)
        status = lib.lg_pool_arrays(id(arrays), mask_id, id(pooled), workspace_id)
        if status == lib.LG_NOT_PLAIN:
            return None
        if kept is not None and kept.shape != shape[:1]:
            raise InputError(
                f"mask: found shape {kept.shape}, expected {shape[:1]}, one entry for each token "
                "of the states"
            )
        _check(status, "pooling")
        return pooled

    arrays = tuple(layers)
    if not arrays:
        raise InputError("found 0 states, expected at least one: give the states to be pooled")
    return _in_place(attempt, arrays)


def _in_place(attempt: Callable[[tuple[Any, ...]], T | None], arrays: tuple[Any, ...]) -> T:
    """What ``attempt`` makes of the arrays, if need be after making them plain."""
    result = attempt(arrays)
    if result is None:
        result = attempt(plain(arrays))
    if result is None:
        raise AssertionError("states that were made plain are not")
    return result


def _width_error(arrays: tuple[Any, ...], expected: str) -> InputError:
    return InputError(
        f"found states of width {arrays[0].shape[1]}, expected {expected}: give the states of the "
        "model that was calibrated"
    )


def _counted(layers: Layers, count: int) -> tuple[Any, ...]:
    """The layers as a tuple of ``count`` arrays."""
    arrays = tuple(layers)
    if len(arrays) != count:
        raise InputError(
            f"found {len(arrays)} states, expected {count}: the embedding output and one after "
            "each block, of the model that was calibrated"
        )
    return arrays


def _rows(arrays: tuple[Any, ...]) -> int:
    """Rows of the first array; 0 of what has no shape, which is then found not to be plain."""
    shape = getattr(arrays[0], "shape", ())
    return shape[0] if shape else 0


def _pointer(c_type: str, array: Array) -> Any:
    """The address of ``array`` as a C pointer that keeps the array alive."""
    return ffi.from_buffer(c_type, array)


def _check(status: int, what: str) -> None:
    """Raise what a status of the C core means; the usual 0 costs nothing more."""
    if status == 0:
        return
    message = f"{what}: {ffi.string(lib.lg_strerror(status)).decode()}"
    if status in (lib.LG_ERR_LEVEL_UNKNOWN, lib.LG_ERR_LEVEL_UNSUPPORTED):
        raise MachineError(message)
    raise InputError(message)
