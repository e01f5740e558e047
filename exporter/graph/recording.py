"""Hooks that record the states of a backbone's blocks during a forward pass."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from layerguard.runtime.errors import ExportError


class Recorded:
    """The states of one forward pass.

    Attributes:
        output: the model's last hidden state; the caller sets it.
    """

    output: Tensor

    def __init__(self, blocks: int, feed_forwards: int) -> None:
        self._states: list[Tensor | None] = [None] * (blocks + 1)
        self._mlp: list[Tensor | None] = [None] * feed_forwards

    @property
    def states(self) -> list[Tensor]:
        """L + 1 tensors [batch, tokens, hidden]: the input of each block, and the last output.

        The input of a block includes anything that the model adds between blocks, as transformers'
        ``hidden_states`` do (DeBERTa's convolution).

        Raises:
            ExportError: a block did not receive or return states.
        """
        return _complete(self._states, "block")

    @property
    def mlp(self) -> list[Tensor]:
        """The output of each feed-forward part, [batch, tokens, hidden].

        Raises:
            ExportError: a part did not run.
        """
        return _complete(self._mlp, "feed-forward part")

    def on_input(self, index: int) -> Callable[..., None]:
        """A forward pre-hook that records a block's input as state ``index``."""

        def hook(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            self._states[index] = input_states(inputs, named)

        return hook

    def on_last_output(self, _: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        """The forward hook of the last block."""
        self._states[-1] = output_states(output)

    def on_feed_forward(self, index: int) -> Callable[..., None]:
        """A forward hook that records the output of a feed-forward part."""

        def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            self._mlp[index] = output_states(output)

        return hook


@contextmanager
def recording(
    blocks: Sequence[nn.Module], feed_forwards: Sequence[nn.Module] = ()
) -> Iterator[Recorded]:
    """Record one forward pass within the ``with`` block, also while it is traced."""
    recorded = Recorded(len(blocks), len(feed_forwards))
    with ExitStack() as hooks:
        for i, block in enumerate(blocks):
            hooks.enter_context(
                block.register_forward_pre_hook(recorded.on_input(i), with_kwargs=True)
            )
        hooks.enter_context(blocks[-1].register_forward_hook(recorded.on_last_output))
        for i, module in enumerate(feed_forwards):
            hooks.enter_context(module.register_forward_hook(recorded.on_feed_forward(i)))
        yield recorded


@contextmanager
def replaced_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Call ``forward`` in place of the module's own method within the ``with`` block."""
    module.forward = forward
    try:
        yield
    finally:
        del module.forward


def input_states(inputs: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    """The states among the arguments of a block."""
    return inputs[0] if inputs else named.get("hidden_states")


def output_states(output: Any) -> Any:
    """The states that a module returns, without the attention weights that some return too."""
    return output[0] if isinstance(output, tuple) else output


def with_states(output: Any, states: Tensor) -> Any:
    """The output of a module with its states replaced."""
    return (states, *output[1:]) if isinstance(output, tuple) else states


def _complete(recorded: list[Tensor | None], kind: str) -> list[Tensor]:
    missing = [i for i, tensor in enumerate(recorded) if not isinstance(tensor, Tensor)]
    if missing:
        raise ExportError(
            f"{kind} {missing[0] + 1} handled no tensor of states in a forward pass; expected each "
            "one to run once, with the states as first argument and first result. Export a model "
            "whose blocks do so"
        )
    return [tensor for tensor in recorded if tensor is not None]
