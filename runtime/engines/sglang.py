"""States of a model that SGLang runs.

``return_hidden_states`` alone gives the last state, **after** the final norm: it is refused, as no
detector reads that. Where a model captures auxiliary hidden states (by
``set_eagle3_layers_to_capture`` or ``--spec-capture-aux-layer-ids``), SGLang puts those of the
chosen layers side by side instead: [tokens, layers x hidden]. There the id k is the output of block
k, counted from 0, which is ``states[k + 1]``. The embedding output is not among them, nor, in many
architectures, the last block's output; forward hooks on the two modules give what lacks (a block
returns its output and the residual apart: their sum is the state).

    side_by_side = returned(output["meta_info"])
    verdict = guard.score_states(
        captured(side_by_side, range(1, L), width, also={0: embedded, L: last})
    )

The server gives Python lists, which are read once into memory of their own; tensors from a hook or
a worker, in host memory, are read in place. A batch's tokens lie one after another: cut each array
with ``engines.flat.requests``. A model may put its final norm on the last captured layer, as
sgl-project/sglang pull request 39776 proposed for one: take L from a hook there.

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
    """What the engine answered for one request, float32 [tokens, layers x hidden].

    Args:
        meta_info: of an output, with ``hidden_states``: rows of the prompt's tokens as one list,
            then those of generated tokens, a row or a list of rows each; and ``prompt_tokens``.

    Raises:
        InputError: there are no hidden states, rows differ in length, or the prompt has fewer rows
            than tokens.
    """
    steps = meta_info.get("hidden_states")
    if not steps:
        raise InputError(
            "meta_info: found no hidden_states; expected them: start the engine with "
            "enable_return_hidden_states and ask with return_hidden_states=True"
        )
    try:
        parts = [np.atleast_2d(np.asarray(step, np.float32)) for step in steps]
        rows = np.concatenate(parts)
    except ValueError as error:
        raise InputError(
            f"hidden_states: found rows that do not fit together ({error}); expected lists of "
            "numbers, a row a token"
        ) from error
    tokens = meta_info.get("prompt_tokens", len(parts[0]))
    if len(parts[0]) != tokens:
        raise InputError(
            f"hidden_states: found {len(parts[0])} rows for a prompt of {tokens} tokens; expected "
            "all: the others lay in the cache, start the engine with disable_radix_cache"
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
        layers: which states lie in it, ascending: 1 and more are outputs of blocks, SGLang's id k
            is k + 1 here.
        width: the hidden size.
        also: states that it does not hold, [tokens, hidden] by their index, of the same dtype.
            Their rows lie closer together, so that kernels copy the captured ones first.

    Raises:
        InputError: sizes do not fit, or the states are not 0 to L, each once.
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
            "before the final norm), each once, the captured ones ascending. What SGLang does not "
            "capture comes from a hook, in also; return_hidden_states alone gives the last state "
            "after the final norm, which no detector reads"
        )
    found = dict(zip(indices, [*pieces, *(also or {}).values()], strict=True))
    return gathered([found[index] for index in sorted(found)])
