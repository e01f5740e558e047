"""Detector inputs for a graph that reads a text in chunks; the state is passed from run to run.

The state of a row is fed as zeros at first, then as the output of the previous run. A text may be
split into any chunks; the scores are those of the whole text so far.
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
    """Taps of a graph that reads the next tokens of a text; tokens may be masked on either side.

    Attributes:
        states: for each state input the output that is fed to it next.
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
        """A row's score so far, from the score of the chunk, float64 [rows].

        For ``last`` it is the score of the newest token, for extremes and windows the largest
        score, where NaN stays. A mean already includes all tokens. A text shorter than a window has
        one window, which grows, so its earlier scores do not count.
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
            past = add("Where", self._too_short(tap), nothing, past)
            wrong = add("Or", add("IsNaN", past), add("IsNaN", score))
            largest = add("Where", add("Greater", past, score), past, score)
            score = add("Where", wrong, constant(np.nan, np.float64), largest)
        self._give(own, score, np.float64)
        return score

    def _too_short(self, tap: Tap) -> str:
        """Bool [rows]: whether the tokens before the chunk gave no score that stays."""
        if tap.probe is None:
            return self._first
        window = self.nodes.constant(tap.probe.window, np.int64)
        return self.nodes.add("Less", self._past_count, window)

    def joined(self, values: str, window: int) -> tuple[str, str]:
        """See ``Taps.joined``; the state holds the values of the last ``window`` tokens."""
        add, constant, axes = self.nodes.add, self.nodes.constant, self.nodes.axes
        own = f"values_{len(self.states)}"
        past = self._state(own, np.float64, ("batch", window))
        zero, one = constant(0, np.int64), constant(1, np.int64)
        numbers = self.nodes.cast(self.valid, INT64)
        count = add("ReduceSum", numbers, axes(1), keepdims=1)
        tokens = add("Squeeze", add("Shape", self.valid, start=1, end=2))
        places = add("Unsqueeze", add("Range", zero, tokens, one), axes(0))
        # masked tokens before the first unmasked one would part it from the earlier tokens
        masked = add("ArgMax", numbers, axis=1, keepdims=1)
        last = add("Sub", tokens, one)
        moved = add("GatherElements", values, add("Min", add("Add", places, masked), last), axis=1)
        held = add("Unsqueeze", add("Min", self._past_count, constant(window, np.int64)), axes(1))
        earlier = constant(np.arange(window)[None], np.int64)
        known = add("GreaterOrEqual", earlier, add("Sub", constant(window, np.int64), held))
        whole = add("Concat", past, moved, axis=1)
        newest = add("GatherElements", whole, add("Add", earlier, count), axis=1)
        self._give(own, newest, np.float64, ("batch", window))
        return whole, add("Concat", known, add("Less", places, count), axis=1)

    def pooled(self, tap: Tap, layers: Sequence[int]) -> list[str]:
        """The last new token's states, or the mean over all tokens so far, float32 [rows, hidden].

        Sums are float64, as the runtime's are.
        """
        if tap.pooling == "last":
            return super().pooled(tap, layers)
        names = self.outputs(tap)
        return [self._mean_so_far(names[layer]) for layer in layers]

    def _mean_so_far(self, name: str) -> str:
        if name in self._means:
            return self._means[name]
        add, axes = self.nodes.add, self.nodes.axes
        own = f"sum_{name}"
        past = self._state(own, np.float64, ("batch", self.width))
        counted = add("Unsqueeze", self.valid, axes(2))
        unmasked = add(
            "Where", counted, self.nodes.cast(name, FLOAT), self.nodes.constant(0, np.float32)
        )
        new = add("ReduceSum", self.nodes.cast(unmasked, DOUBLE), axes(1), keepdims=0)
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
