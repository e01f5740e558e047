"""A progress bar on a terminal that names the current step and shows the time that is left."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from tqdm import tqdm

Tick = Callable[[float], None]
"""Callback that takes the completed fraction of a step, 0 to 1."""

LENS = "running each layer in PyTorch"
"""The step before ``running it in PyTorch``, in exports with an analysis graph."""

_SCALE = 1000
"""Length of the bar: thousandths of all work."""


def ignore(_: float) -> None:
    """A tick that reports to nobody."""


def steps(graphs: Sequence[str]) -> dict[str, float]:
    """The steps of an export in order, each with its weight.

    Weights are CPU seconds of SmolLM2-135M-Instruct (``tests.bench.bench_export``); steps that both
    graphs have use the mean of the two. Only the ratios matter.

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
    """A plan of weighted steps and the completed share of it; the bar never moves backwards.

    Steps begin in the order of the plan. A step that is left out, such as those of a graph that the
    model cannot have, counts as done when a later one begins.
    """

    def __init__(self, bar: Any, plan: Mapping[str, float]) -> None:
        """Take a ``tqdm`` bar from 0 to 1000 and the steps in order, each with its weight."""
        self._bar = bar
        self._start = self._weight = 0.0
        self.plan(plan)

    def plan(self, plan: Mapping[str, float]) -> None:
        """Replace the plan when more is known."""
        self._plan = dict(plan)
        self._whole = sum(self._plan.values())

    def step(self, name: str) -> None:
        """Begin a step; all steps before it are done.

        Args:
            name: of the plan; any other step has no weight and follows the current one.
        """
        if name in self._plan:
            names = list(self._plan)
            self._start = sum(self._plan[each] for each in names[: names.index(name)])
        else:
            self._start += self._weight
        self._weight = self._plan.get(name, 0.0)
        self._bar.set_description_str(name, refresh=False)
        self.tick(0)
        self._bar.refresh()

    def tick(self, fraction: float) -> None:
        """Report the completed fraction of the step, 0 to 1."""
        done = self._start + self._weight * min(max(fraction, 0.0), 1.0)
        position = min(_SCALE, int(_SCALE * done / self._whole)) if self._whole else 0
        # an update by 0 redraws the elapsed time
        self._bar.update(max(0, position - self._bar.n))

    def finish(self) -> None:
        """Report that all work is done."""
        self._bar.update(_SCALE - self._bar.n)
        self._bar.refresh()


@contextmanager
def progress(plan: Mapping[str, float], stream: TextIO | None = None) -> Iterator[Progress]:
    """Show a bar on a terminal; write nothing to a pipe.

    Args:
        plan: the steps in order, each with its weight.
        stream: the terminal; None means stderr.
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
        tracked = Progress(bar, plan)
        yield tracked
        tracked.finish()
