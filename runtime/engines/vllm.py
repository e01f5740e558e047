"""States of a model that runs in vLLM.

vLLM keeps hidden states if ``speculative_config`` names the method ``extract_hidden_states`` (0.18
and later). Its ExampleHiddenStatesConnector writes those of a prompt to a safetensors file, whose
path is in the request's ``kv_transfer_params``. Layer 0 is the embedding output, layer l the
residual stream after block l, and layer L the state before the final norm. Request all layers:
``"eagle_aux_hidden_state_layer_ids": list(range(L + 1))``.

    tensors = safetensors.numpy.load_file(path)   # bfloat16: safetensors.torch and DLPack
    verdict = guard.score_states(saved(tensors["hidden_states"], range(L + 1)))

Inside the engine's process, a worker's step has the same layers, with the tokens of all requests
concatenated; ``batch`` splits them by request. The tensors are in the accelerator's memory: copy
them to pinned host memory first, and wait for the copy. A step contains only the tokens that it
computed, so it lacks earlier chunks and cached prefixes of a prompt. This is enough for LCF, which
reads the last token. For SIREN and WeightWatch turn off chunked prefill and prefix caching, or use
the file, which has all tokens.

Older releases, and architectures that were not updated (vllm-project/vllm issue 48124), count only
the inputs of blocks and silently omit the last state. The result then has L layers and is refused.

Source: vLLM's page "Hidden State Extraction" and pull request 33736.
"""

from collections.abc import Sequence
from typing import Any

from layerguard.runtime.engines.flat import requests
from layerguard.runtime.errors import InputError
from layerguard.runtime.kernels import host
from layerguard.runtime.types import Array


def saved(hidden_states: Any, layer_ids: Sequence[int]) -> tuple[Array, ...]:
    """The states of one prompt, L + 1 views [tokens, hidden].

    Args:
        hidden_states: [tokens, L + 1, hidden], as the connector writes them. The returned views
            have a row stride.
        layer_ids: the ids requested from vLLM, in any order; vLLM sorts them.

    Raises:
        InputError: the ids are not 0 to L, or their number differs from the number of layers.
    """
    array = host(hidden_states)
    if array.ndim != 3:
        raise InputError(
            f"hidden_states: found shape {array.shape}; expected [tokens, layers, hidden]"
        )
    _check(layer_ids, array.shape[1])
    return tuple([array[:, index] for index in range(array.shape[1])])


def batch(
    aux_hidden_states: Sequence[Any],
    query_start_loc: Sequence[int] | Array,
    layer_ids: Sequence[int],
) -> list[tuple[Array, ...]]:
    """The states of each request of one step, L + 1 views [tokens, hidden] each.

    Args:
        aux_hidden_states: L + 1 tensors [tokens of all requests, hidden] of one forward pass, in
            host memory. Padding rows at the end are ignored.
        query_start_loc: [requests + 1], the start of each request; the first ``num_reqs + 1``
            entries of vLLM's array.
        layer_ids: as in ``saved``.

    Raises:
        InputError: as in ``saved``; the starts do not increase within the rows; or a tensor cannot
            be read in place.
    """
    _check(layer_ids, len(aux_hidden_states))
    return requests(aux_hidden_states, query_start_loc)


def _check(layer_ids: Sequence[int], layers: int) -> None:
    if sorted(layer_ids) != list(range(layers)):
        raise InputError(
            f"found {layers} layers for ids {sorted(layer_ids)}; expected all layers, 0 (the "
            "embedding output) to L (the state before the final norm): set "
            "eagle_aux_hidden_state_layer_ids to list(range(L + 1)), and use a vLLM release that "
            "returns the last state"
        )
