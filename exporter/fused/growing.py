"""What detectors read of a text that grows: what earlier chunks left comes in and goes out again.

A row's state is fed as zeros at first, and then what the run before gave. So a text may come in any
chunks, and its scores are those of the whole text so far.
"""

from collections.abc import Sequence

import numpy as np

from layerguard.exporter.fused.nodes import DOUBLE, FLOAT, INT64, Axes, Nodes
from layerguard.exporter.fused.taps import Taps
from layerguard.runtime.model.plan import Planner
from layerguard.runtime.types import Tap

COUNT = "tokens_read"
_PAST = "past_"


class GrowingTaps(Taps):
    """The states of a graph over further tokens; masked ones, on either side, do not count.

    Attributes:
        states: by input, the output that is fed there next.
    """

    def __init__(self, nodes: Nodes, planner: Planner, width: int) -> None:
        add = nodes.add
        new = add("Neg", add("Shape", "input_ids", start=1, end=2))
        end = nodes.axes(np.iinfo(np.int64).max)
        mask = add("Slice", "attention_mask", new, end, nodes.axes(1))
        super().__init__(nodes, planner, width, mask)
        self.states: dict[str, str] = {}
        self._chunk_is_empty = self.empty
        self._past_count = self._state(COUNT, np.int64)
        tokens = add("ReduceSum", nodes.cast(self.valid, INT64), nodes.axes(1), keepdims=0)
        self._total = add("Add", self._past_count, tokens)
        self._give(COUNT, self._total, np.int64)
        self.empty = add("Equal", self._total, nodes.constant(0, np.int64))
        self._first = add("Equal", self._past_count, nodes.constant(0, np.int64))
        self._means: dict[str, str] = {}

    def carried(self, name: str, tap: Tap, score: str) -> str:
        """A row's score so far, from that of the chunk alone, float64 [rows].

        Of the last token: the newest there is. Of extremes: the largest, and NaN stays. A mean's is
        of all tokens already.
        """
        if tap.pooling == "mean":
            return score
        add, constant = self.nodes.add, self.nodes.constant
        own = f"{name}_so_far"
        past = self._state(own, np.float64)
        if tap.pooling == "last":
            score = add("Where", self._chunk_is_empty, past, score)
        else:
            nothing = constant(-np.inf, np.float64)
            past = add("Where", self._first, nothing, past)
            wrong = add("Or", add("IsNaN", past), add("IsNaN", score))
            largest = add("Where", add("Greater", past, score), past, score)
            score = add("Where", wrong, constant(np.nan, np.float64), largest)
        self._give(own, score, np.float64)
        return score

    def pooled(self, tap: Tap, layers: Sequence[int]) -> list[str]:
        """The last new token's states, or the mean over all tokens so far, float32 [rows, hidden].

        Sums are float64, as the runtime's are.
        """
        if tap.pooling == "last":
            return super().pooled(tap, layers)
        names = self._names(tap)
        return [self._mean_so_far(names[layer]) for layer in layers]

    def _mean_so_far(self, name: str) -> str:
        if name in self._means:
            return self._means[name]
        add, axes = self.nodes.add, self.nodes.axes
        own = f"sum_{name}"
        past = self._state(own, np.float64, ("batch", self.width))
        counted = add("Unsqueeze", self.valid, axes(2))
        kept = add(
            "Where", counted, self.nodes.cast(name, FLOAT), self.nodes.constant(0, np.float32)
        )
        new = add("ReduceSum", self.nodes.cast(kept, DOUBLE), axes(1), keepdims=0)
        total = add("Add", past, new)
        self._give(own, total, np.float64, ("batch", self.width))
        count = add("Unsqueeze", self.nodes.cast(self._total, DOUBLE), axes(1))
        self._means[name] = self.nodes.cast(add("Div", total, count), FLOAT)
        return self._means[name]

    def _state(self, name: str, dtype: type[np.generic], axes: Axes = ("batch",)) -> str:
        return self.nodes.required(f"{_PAST}{name}", dtype, axes)

    def _give(
        self, name: str, value: str, dtype: type[np.generic], axes: Axes = ("batch",)
    ) -> None:
        self.states[f"{_PAST}{name}"] = name
        self.nodes.output(name, value, dtype, axes)
