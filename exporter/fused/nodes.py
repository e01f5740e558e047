"""Appends standard ONNX operators to a graph."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from layerguard.runtime.types import Array

FLOAT, DOUBLE, INT64, BOOL = (
    TensorProto.FLOAT,
    TensorProto.DOUBLE,
    TensorProto.INT64,
    TensorProto.BOOL,
)
ONNX_TYPES: Mapping[np.dtype[np.generic], int] = {
    np.dtype(np.float32): FLOAT,
    np.dtype(np.float64): DOUBLE,
    np.dtype(np.int64): INT64,
    np.dtype(np.bool_): BOOL,
}
Axes = tuple[str | int, ...]
"""Shape of a value; a named dimension may have any length."""

_OWN = "layerguard"


class Nodes:
    """Builds a graph; the names of new values start with ``layerguard/``, so they are unique.

    Attributes:
        graph: the graph that is extended in place.
    """

    def __init__(self, graph: GraphProto) -> None:
        self.graph = graph
        self._count = 0
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Append a node with one output.

        Args:
            operator: of the default domain.
            inputs: names of values.
            attributes: attributes of the node.

        Returns:
            The output's name.
        """
        name = self._fresh(operator.lower())
        node: NodeProto = helper.make_node(operator, inputs, [name], name, **attributes)
        self.graph.node.append(node)
        return name

    def constant(self, value: Array | float, dtype: type[np.generic] | None = None) -> str:
        """The name of an initialiser with this value; equal values are stored once."""
        array = np.array(value, dtype)  # in C order; a scalar stays a scalar
        key = array.dtype.str, array.shape, array.tobytes()
        if key not in self._known:
            self._known[key] = self._fresh("constant")
            self.graph.initializer.append(numpy_helper.from_array(array, self._known[key]))
        return self._known[key]

    def axes(self, *axes: int) -> str:
        """Axes or a shape, as an int64 constant of one dimension."""
        return self.constant(np.array(axes), np.int64)

    def cast(self, value: str, to: int) -> str:
        """The value converted to another type."""
        return self.add("Cast", value, to=to)

    def finite(self, value: str) -> str:
        """Whether float64 values are finite, bool of the same shape."""
        return self.add("Less", self.add("Abs", value), self.constant(np.inf, np.float64))

    def required(self, name: str, dtype: type[np.generic], axes: Axes) -> str:
        """Add an input to the graph."""
        kind = ONNX_TYPES[np.dtype(dtype)]
        self.graph.input.append(helper.make_tensor_value_info(name, kind, axes))
        return name

    def overridable(self, name: str, value: float) -> str:
        """Add an optional float64 scalar input: an input with an initialiser."""
        self.graph.input.append(helper.make_tensor_value_info(name, DOUBLE, ()))
        array = np.array(value, np.float64)
        self.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def output(
        self, name: str, value: str, dtype: type[np.generic], axes: Axes = ("texts",)
    ) -> None:
        """Add the value as output ``name`` of the graph."""
        self.graph.node.append(helper.make_node("Identity", [value], [name], name))
        kind = ONNX_TYPES[np.dtype(dtype)]
        self.graph.output.append(helper.make_tensor_value_info(name, kind, axes))

    def _fresh(self, what: str) -> str:
        self._count += 1
        return f"{_OWN}/{what}_{self._count}"
