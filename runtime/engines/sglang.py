"""States of a model that runs in SGLang.

``return_hidden_states`` alone returns the last state **after** the final norm. It is refused,
because no detector reads that state. If a model captures auxiliary hidden states (with
``set_eagle3_layers_to_capture`` or ``--spec-capture-aux-layer-ids``), SGLang returns the states of
the chosen layers concatenated instead: [tokens, layers x hidden]. The id k then means the output of
block k, counted from 0, which is ``states[k + 1]``. The embedding output is not included, nor, in
many architectures, the output of the last block. Get these two from forward hooks on their modules.
A block returns its output and the residual separately; the state is their sum.

    side_by_side = returned(output["meta_info"])
    verdict = guard.score_states(
        captured(side_by_side, range(1, L), width, also={0: embedded, L: last})
    )

The server returns Python lists, which are copied once; tensors from a hook or a worker, in host
memory, are read in place. The tokens of a batch are concatenated: split each array with
``engines.flat.requests``. A model may apply its final norm to the last captured layer, as
sgl-project/sglang pull request 39776 proposed for one model: take state L from a hook in that case.

Source: sgl-project/sglang, ``layers/logits_processor.py`` and ``examples/runtime/hidden_states``;
issue 2668 on the last state, 32204 on the last layer, 4997 on cached prompts.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from layerguard.runtime.errors import InputError
from layerguard.runtime.kernels import gathered, host
from layerguard.runtime.types import Array


def returned(meta_info: Mapping[str, Any]) -> Array:
    """The hidden states of one request from the engine, float32 [tokens, layers x hidden].

    Args:
        meta_info: ``meta_info`` of an output. ``hidden_states`` holds the rows of the prompt's
            tokens as one list, then a row or a list of rows for each generated token.
            ``prompt_tokens`` is the number of prompt tokens.

    Raises:
        InputError: there are no hidden states, rows differ in length, or the prompt has fewer rows
            than tokens.
    """
    steps = meta_info.get("hidden_states")
    if not steps:
        raise InputError(
            "meta_info: found no hidden_states; expected one list for each token: start the engine "
            "with enable_return_hidden_states and call it with return_hidden_states=True"
        )
    try:
        parts = [np.atleast_2d(np.asarray(step, np.float32)) for step in steps]
        rows = np.concatenate(parts)
    except ValueError as error:
        raise InputError(
            f"hidden_states: found rows that do not form a matrix ({error}); expected one list of "
            "numbers for each token, all of one length"
        ) from error
    tokens = meta_info.get("prompt_tokens", len(parts[0]))
    if len(parts[0]) != tokens:
        raise InputError(
            f"hidden_states: found {len(parts[0])} rows for a prompt of {tokens} tokens; expected "
            f"{tokens}: the other rows were cached, start the engine with disable_radix_cache"
        )
    return rows


def captured(
    side_by_side: Any,
    layers: Sequence[int],
    width: int,
    also: Mapping[int, Any] | None = None,
) -> tuple[Array, ...]:
    """The states of one text, L + 1 views [tokens, hidden].

    Args:
        side_by_side: [tokens, layers x hidden], in host memory.
        layers: indices of the states in it, ascending. Index l is the output of block l, counted
            from 1: SGLang's id k is k + 1 here.
        width: the hidden size.
        also: the missing states, [tokens, hidden] by their index, of the same dtype. Their row
            stride differs from the captured states', so kernels copy the captured states first.

    Raises:
        InputError: sizes do not match, or the states are not 0 to L, each once.
    """
    array = host(side_by_side)
    if array.ndim != 2 or array.shape[1] != len(layers) * width:
        raise InputError(
            f"side_by_side: found shape {array.shape}; expected [tokens, {len(layers) * width}] "
            f"for {len(layers)} states of width {width}"
        )
    pieces = [array[:, i * width : (i + 1) * width] for i in range(len(layers))]
    indices = [*layers, *(also or {})]
    if list(layers) != sorted(layers) or sorted(indices) != list(range(len(indices))):
        raise InputError(
            f"layers: found states {indices}; expected 0 (the embedding output) to L (the last "
            "before the final norm), each once, the captured states ascending. Get states that "
            "SGLang does not capture from a hook and pass them in also; return_hidden_states alone "
            "returns the last state after the final norm, which no detector reads"
        )
    by_index = dict(zip(indices, [*pieces, *(also or {}).values()], strict=True))
    return gathered([by_index[index] for index in sorted(by_index)])
