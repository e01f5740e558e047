"""The SIREN kernel; see the package for what states are."""

from collections.abc import Sequence
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
        weight_pointers = [pointer("float[]", array) for array in matrices]
        bias_pointers = [pointer("float[]", array) for array in vectors]
        fields = {
            "states_needed": self.states_needed,
            "width_needed": self.width_needed,
            "chosen_count": chosen,
            "layers": pointer("int[]", indices[0]),
            "neuron_offsets": pointer("int[]", indices[1]),
            "neurons": pointer("int[]", indices[2]),
            "alpha": pointer("float[]", scales),
            "linear_count": len(matrices),
            "widths": ffi.new("size_t[]", widths),
            "weights": ffi.new("float *[]", weight_pointers),
            "biases": ffi.new("float *[]", bias_pointers),
        }
        self._parameters = (fields, weight_pointers, bias_pointers)
        self._model = ffi.new("lg_siren *", fields)
        check(lib.lg_siren_check(self._model), "SIREN parameters")

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
        arrays = counted(tuple(layers)[: self.states_needed], self.states_needed)
        return in_place(self._attempt, arrays)

    def _attempt(self, arrays: tuple[Any, ...]) -> Doubles | None:
        """The scores, or None if the arrays are not what the C core reads in place."""
        rows = row_count(arrays)
        scores = np.empty(rows)
        workspace = np.empty(lib.lg_siren_workspace(self._model, rows), np.float32)
        status = lib.lg_siren_arrays(self._model, id(arrays), id(scores), id(workspace))
        if status == lib.LG_NOT_PLAIN:
            return None
        if status == lib.LG_ERR_SHAPE:
            raise width_error(arrays, f"at least {self.width_needed}")
        check(status, "SIREN")
        return scores
