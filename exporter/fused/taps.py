"""The inputs of detectors, as values of the graph."""

from collections.abc import Sequence

import numpy as np

from layerguard.exporter.fused.nodes import BOOL, FLOAT, INT64, Nodes
from layerguard.runtime.model.plan import Planner
from layerguard.runtime.types import Tap


class Taps:
    """Detector inputs for a graph that reads whole texts; rows may be padded on either side.

    Attributes:
        nodes: builder of the graph.
        valid: bool [rows, tokens], False where a token is padding.
        empty: bool [rows], True where all tokens are padding.
        width: width of a state.
    """

    def __init__(
        self, nodes: Nodes, planner: Planner, width: int, mask: str = "attention_mask"
    ) -> None:
        self.nodes = nodes
        self.width = width
        self._planner = planner
        self.valid = nodes.cast(mask, BOOL)
        numbers = nodes.cast(self.valid, FLOAT)
        self._count = nodes.add("ReduceSum", numbers, nodes.axes(1), keepdims=1)
        none = nodes.add("Equal", self._count, nodes.constant(0, np.float32))
        self.empty = nodes.add("Squeeze", none, nodes.axes(1))
        self._numbers = numbers
        self._roles = ""
        self._last = ""
        self._share = ""

    def carried(self, name: str, tap: Tap, score: str) -> str:  # noqa: ARG002 - used in chunks
        """A row's score so far; here the score itself, since the tokens are the whole text."""
        return score

    def tokens(self, tap: Tap) -> list[str]:
        """The states of all tokens, float32 [rows, tokens, hidden], for each layer of the tap."""
        return [self.nodes.cast(name, FLOAT) for name in self.outputs(tap)]

    def pooled(self, tap: Tap, layers: Sequence[int]) -> list[str]:
        """The pooled states of these layers, float32 [rows, hidden] each."""
        names = self.outputs(tap)
        chosen = [names[layer] for layer in layers]
        if not self._planner.token_outputs.intersection(names):
            return [self.nodes.cast(name, FLOAT) for name in chosen]
        pool = self._last_of if tap.pooling == "last" else self._mean_of
        return [pool(self.nodes.cast(name, FLOAT)) for name in chosen]

    def outputs(self, tap: Tap) -> list[str]:
        """The graph's outputs that the tap reads, ordered by layer.

        Raises:
            InputError: the graph lacks them.
        """
        plan = self._planner.plan([tap])
        places, _ = plan.groups[tap.group]
        return [plan.outputs[place] for place in places]

    def joined(self, values: str, window: int) -> tuple[str, str]:  # noqa: ARG002 - used in chunks
        """Values of a window of tokens before these and of these, and which of them count.

        Args:
            values: float64 [rows, tokens].
            window: number of earlier tokens that are needed.

        Returns:
            float64 and bool [rows, tokens]; here the values themselves, since the tokens are the
            whole text.
        """
        return values, self.valid

    def roles(self) -> str:
        """The input with the role of each token, int64 [rows, tokens]."""
        if not self._roles:
            self._roles = self.nodes.required("roles", np.int64, ("batch", "tokens"))
        return self._roles

    def _last_of(self, states: str) -> str:
        add, constant = self.nodes.add, self.nodes.constant
        if not self._last:
            tokens = add("Shape", self.valid, start=1, end=2)
            scalar = add("Squeeze", tokens)
            places = add("Range", constant(0, np.int64), scalar, constant(1, np.int64))
            counted = add("Mul", places, self.nodes.cast(self.valid, INT64))
            self._last = add("ReduceMax", counted, self.nodes.axes(1), keepdims=1)
        return add("GatherND", states, self._last, batch_dims=1)

    def _mean_of(self, states: str) -> str:
        add = self.nodes.add
        if not self._share:
            shares = add("Div", self._numbers, self._count)
            self._share = add("Unsqueeze", shares, self.nodes.axes(1))
        return add("Squeeze", add("MatMul", self._share, states), self.nodes.axes(1))
