"""Hooks that write down what flows through the blocks of a backbone while it runs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from layerguard.runtime.errors import ExportError


class Recorded:
    """What was seen in one forward pass.

    Attributes:
        output: the model's last hidden state; the caller sets it.
    """

    output: Tensor

    def __init__(self, blocks: int, feed_forwards: int) -> None:
        self._states: list[Tensor | None] = [None] * (blocks + 1)
        self._mlp: list[Tensor | None] = [None] * feed_forwards

    @property
    def states(self) -> list[Tensor]:
        """L + 1 tensors [batch, tokens, hidden]: what each block read, and what the last wrote.

        A block reads what comes out of the block before and anything the model adds in between, so
        that is in the states, as it is in transformers' ``hidden_states`` (DeBERTa's convolution).

        Raises:
            ExportError: a block passed on no states.
        """
        return _complete(self._states, "block")

    @property
    def mlp(self) -> list[Tensor]:
        """What each feed-forward part wrote, [batch, tokens, hidden].

        Raises:
            ExportError: one of them did not run.
        """
        return _complete(self._mlp, "feed-forward part")

    def on_read(self, place: int) -> Callable[..., None]:
        """A forward pre-hook that keeps a block's input as state ``place``."""

        def hook(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            self._states[place] = read_by(given, named)

        return hook

    def on_last_write(self, _: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        """The forward hook of the last block."""
        self._states[-1] = first(output)

    def on_feed_forward(self, place: int) -> Callable[..., None]:
        """A forward hook that keeps a feed-forward part's output."""

        def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            self._mlp[place] = first(output)

        return hook


@contextmanager
def recording(
    blocks: Sequence[nn.Module], feed_forwards: Sequence[nn.Module] = ()
) -> Iterator[Recorded]:
    """Record one forward pass that is run inside the ``with`` block; works under tracing too."""
    recorded = Recorded(len(blocks), len(feed_forwards))
    handles: list[RemovableHandle] = []
    try:
        for i, block in enumerate(blocks):
            handles.append(block.register_forward_pre_hook(recorded.on_read(i), with_kwargs=True))
        handles.append(blocks[-1].register_forward_hook(recorded.on_last_write))
        for i, module in enumerate(feed_forwards):
            handles.append(module.register_forward_hook(recorded.on_feed_forward(i)))
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


def read_by(given: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    """The states that a block was called with."""
    return given[0] if given else named.get("hidden_states")


def first(output: Any) -> Any:
    """What a module returns, without the attention weights that some return beside it."""
    return output[0] if isinstance(output, tuple) else output


def replaced(output: Any, states: Tensor) -> Any:
    """What a module returned, with other states in it."""
    return (states, *output[1:]) if isinstance(output, tuple) else states


def _complete(found: list[Tensor | None], what: str) -> list[Tensor]:
    missing = [i for i, tensor in enumerate(found) if not isinstance(tensor, Tensor)]
    if missing:
        raise ExportError(
            f"{what} {missing[0] + 1} passed on no tensor of states in a forward pass; expected "
            "every one to run once, with the states as its first argument and first result"
        )
    return [tensor for tensor in found if tensor is not None]
