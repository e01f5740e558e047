"""What the changes of tuning add at each token, as outputs of a graph."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from layerguard.exporter.loading.changes import Change
from layerguard.runtime.bundle.manifest import ADDED_KINDS
from layerguard.runtime.checkpoints.places import PARTS, Place
from layerguard.runtime.errors import ExportError

LEAST = 1e-6
"""A shorter product counts as this long."""


class Added:
    """ln |dW x| at each token, by place."""

    def __init__(self) -> None:
        self._logarithms: dict[Place, Tensor] = {}

    def at(self, place: Place) -> Tensor:
        """What the change of this matrix adds, float32 [batch, tokens].

        Raises:
            ExportError: the matrix was not used.
        """
        if place not in self._logarithms:
            raise ExportError(
                f"{PARTS[place[1]]} of block {place[0] + 1} did not run in a forward pass; "
                "expected each changed matrix to run once. Report the model"
            )
        return self._logarithms[place]

    def by_kind(self) -> dict[str, Callable[[int], Tensor]]:
        """For each kind of output, what gives it for a block, counted from 1."""
        return {kind: self._part(part) for part, kind in enumerate(ADDED_KINDS)}

    def _part(self, part: int) -> Callable[[int], Tensor]:
        return lambda layer: self.at((layer - 1, part))

    def on_input(self, change: Change) -> Callable[..., None]:
        """A forward pre-hook that records what a change adds."""

        def hook(_: object, inputs: tuple[Any, ...]) -> None:
            added = torch.matmul(inputs[0].to(torch.float32), change.factor.T)
            square = (added * added).sum(-1)
            self._logarithms[change.place] = 0.5 * torch.log(square.clamp(min=LEAST**2))

        return hook


@contextmanager
def adding(changes: Sequence[Change]) -> Iterator[Added]:
    """Record what the changes add in one forward pass, also while it is traced."""
    added = Added()
    with ExitStack() as hooks:
        for change in changes:
            hooks.enter_context(change.module.register_forward_pre_hook(added.on_input(change)))
        yield added
