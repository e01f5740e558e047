"""A line on a terminal that names the step at work, moves during it, and knows what is left."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from tqdm import tqdm

Tick = Callable[[float], None]
"""Told, during a step, how much of it is done: 0 to 1."""

LENS = "running each layer in PyTorch"
"""A step before ``running it in PyTorch``, where there is an analysis graph."""

_SCALE = 1000
"""Of the bar: thousandths of the whole."""


def ignore(_: float) -> None:
    """The tick of a step that nobody watches."""


def steps(graphs: Sequence[str]) -> dict[str, float]:
    """The steps of an export in their order, each with its weight.

    Weights are CPU seconds of SmolLM2-135M-Instruct (``tests.bench.bench_export``), the mean of its
    two graphs where a step is of each; only their ratios matter.

    Args:
        graphs: names of the graphs to make.
    """
    plan = {"loading the model": 27.0}
    if "analysis" in graphs:
        plan[LENS] = 160.0
    plan["running it in PyTorch"] = 41.0
    for name in graphs:
        plan[f"tracing the {name} graph"] = 42.0
        plan[f"converting the {name} graph to ONNX"] = 31.0
        plan[f"writing the {name} graph"] = 1.0
        plan[f"comparing the {name} graph with PyTorch"] = 8.0
    plan["writing the bundle"] = 1.0
    return plan


class Progress:
    """A plan of weighted steps, and how much of it is done; the bar only moves forwards.

    Steps are begun in the order of the plan. One that is left out, such as those of a graph that
    the model cannot have, counts as done once a later one begins.
    """

    def __init__(self, bar: Any, plan: Mapping[str, float]) -> None:
        """Take a ``tqdm`` bar from 0 to 1000 and the steps in order, each with its weight."""
        self._bar = bar
        self._name = ""
        self._start = self._weight = 0.0
        self.plan(plan)

    def plan(self, plan: Mapping[str, float]) -> None:
        """Replace the plan, once more is known."""
        self._plan = dict(plan)
        self._whole = sum(self._plan.values())

    def step(self, name: str, weight: float | None = None) -> None:
        """Begin a step: all before it is done.

        Args:
            name: of the plan, or another, which comes between two of the plan.
            weight: None: the plan's, or nothing where the step is not in it.
        """
        if name in self._plan:
            names = list(self._plan)
            self._start = sum(self._plan[each] for each in names[: names.index(name)])
        else:
            self._start += self._weight
        self._weight = self._plan.get(name, 0.0) if weight is None else weight
        self._bar.set_description_str(name, refresh=False)
        self.tick(0)
        self._bar.refresh()

    def tick(self, fraction: float) -> None:
        """So much of the step is done, 0 to 1."""
        done = self._start + self._weight * min(max(fraction, 0.0), 1.0)
        place = min(_SCALE, int(_SCALE * done / self._whole)) if self._whole else 0
        self._bar.update(max(0, place - self._bar.n))  # by nothing: the clock still moves

    def finish(self) -> None:
        """All is done."""
        self._bar.update(_SCALE - self._bar.n)
        self._bar.refresh()


@contextmanager
def progress(plan: Mapping[str, float], stream: TextIO | None = None) -> Iterator[Progress]:
    """A bar on a terminal; nothing in a pipe.

    Args:
        plan: the steps in their order, each with its weight.
        stream: where to; None: stderr.
    """
    with tqdm(
        total=_SCALE,
        disable=None,
        leave=False,
        file=stream,
        bar_format="{desc} {percentage:3.0f} % |{bar:20}| {elapsed}, {remaining} left",
        miniters=0,
        mininterval=0.2,
    ) as bar:
        made = Progress(bar, plan)
        yield made
        made.finish()
