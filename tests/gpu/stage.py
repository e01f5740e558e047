"""What a stage of the checks on a GPU is given, and what it may answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerguard.runtime.model.session import Device


class NotRun(Exception):  # noqa: N818  it is no error
    """A stage that does not make sense here, and why."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Where and on what a stage runs.

    Attributes:
        device: whose provider is checked.
        bundles: folder of the bundles.
        tiny: whether these are toys.
    """

    device: Device
    bundles: Path
    tiny: bool


@dataclass(frozen=True, slots=True)
class Stage:
    """One question.

    Attributes:
        run: answers it; raises ``NotRun``, or anything where the answer is no.
        seconds: how long it may take.
        decides: whether a wrong answer is a fault, and not only a slow machine.
        needs_cuda: whether it makes no sense without the CUDA provider.
        large: whether it needs gigabytes.
        needs: the bundles that it reads.
    """

    run: Callable[[Setting], Mapping[str, Any]]
    seconds: int
    decides: bool = False
    needs_cuda: bool = False
    large: bool = False
    needs: tuple[str, ...] = ()
