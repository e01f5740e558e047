"""States of a model that runs in Hugging Face transformers.

``output_hidden_states=True`` returns L + 1 tensors [batch, tokens, hidden]. In decoders the last
tensor is not the output of the last block, because the final norm is applied to it. ``LastBlock``
therefore records the output of the last block with a forward hook:

    with LastBlock(model.model.layers[-1]) as last, torch.inference_mode():
        output = model(**tokens, output_hidden_states=True)
    verdict = guard.score_states(
        states(output.hidden_states, last), mask=tokens["attention_mask"][0].numpy()
    )

Encoders without a final norm are handled in the same way (``model.encoder.layer[-1]``). Tensors
that require a gradient cannot be read in place: run the model in ``torch.inference_mode()``. Copy
tensors of an accelerator to the host first: ``[state.cpu() for state in output.hidden_states]``;
``LastBlock`` copies its own tensor.

Source: transformers' ``output_hidden_states``; huggingface/transformers pull request 26142 on its
last entry.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from layerguard.runtime.errors import InputError
from layerguard.runtime.kernels import host
from layerguard.runtime.types import Array


class LastBlock:
    """Context manager that records the output of a model's last block, one forward pass at a time.

    Args:
        block: the module; it must have PyTorch's ``register_forward_hook``.
    """

    def __init__(self, block: Any) -> None:
        self._block = block
        self._written: list[Any] = []
        self._taken: tuple[Any, Any] = (None, None)
        self._handle: Any = None

    def __enter__(self) -> Self:
        self._handle = self._block.register_forward_hook(self._keep)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._handle.remove()

    def _keep(self, _: Any, __: Any, output: Any) -> None:
        self._written.append(output[0] if isinstance(output, tuple) else output)

    def take(self, hidden_states: Any) -> Any:
        """The block's output, [batch, tokens, hidden], of the pass that gave ``hidden_states``.

        May be called several times with the same ``hidden_states``.

        Raises:
            InputError: the block ran not exactly once since the last pass was taken.
        """
        if not self._written and self._taken[0] is hidden_states:
            return self._taken[1]
        written, self._written = self._written, []
        if len(written) != 1:
            raise InputError(
                f"the last block ran {len(written)} times since its states were last taken; "
                "expected one forward pass: pass the hidden states of that pass"
            )
        state = written[0].cpu() if hasattr(written[0], "cpu") else written[0]
        self._taken = (hidden_states, state)
        return state


def states(hidden_states: Sequence[Any], last: LastBlock, row: int = 0) -> tuple[Array, ...]:
    """The states of one text of the batch, L + 1 views [tokens, hidden].

    Args:
        hidden_states: L + 1 tensors [batch, tokens, hidden] of one forward pass. The last tensor
            is ignored.
        last: the recorded output of the last block in the same pass.
        row: index of the text in the batch.

    Raises:
        InputError: the last state before the final norm is missing or belongs to another pass; the
            hidden states are those of ``generate``; the batch has no such row; or a tensor cannot
            be read in place.
    """
    if not isinstance(last, LastBlock):
        raise InputError(
            f"last: found {type(last).__name__}; expected a LastBlock that recorded the forward "
            "pass: transformers' last hidden state is after the final norm, and no detector reads "
            "that state"
        )
    kinds = [type(state).__name__ for state in hidden_states or () if not hasattr(state, "shape")]
    if kinds or not hidden_states:
        raise InputError(
            f"hidden_states: found {kinds[0] if kinds else 'nothing'}; expected the tensors of all "
            "layers from one forward pass with output_hidden_states=True (generate returns one "
            "tuple of tensors for each step)"
        )
    tensors = [*hidden_states[:-1], last.take(hidden_states)]
    shapes = {tuple(tensor.shape) for tensor in tensors}
    if len(shapes) != 1 or len(next(iter(shapes))) != 3:
        raise InputError(
            f"hidden_states: found shapes {sorted(shapes)}, including the last block's; expected "
            "one shape, [batch, tokens, hidden], from one forward pass"
        )
    batch = next(iter(shapes))[0]
    if not 0 <= row < batch:
        raise InputError(f"row: found {row}; expected 0 to {batch - 1}")
    return tuple([host(tensor)[row] for tensor in tensors])
