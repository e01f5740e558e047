"""States of a model that vLLM runs.

vLLM keeps hidden states where ``speculative_config`` names the method ``extract_hidden_states``
(0.18 and later), and its ExampleHiddenStatesConnector writes those of a prompt to a safetensors
file whose path is in the request's ``kv_transfer_params``. Layer 0 is the embedding output, layer l
the residual stream after block l, and L that before the final norm: what the detectors read. Ask
for all: ``"eagle_aux_hidden_state_layer_ids": list(range(L + 1))``.

    tensors = safetensors.numpy.load_file(path)   # bfloat16: safetensors.torch and DLPack
    verdict = guard.score_states(saved(tensors["hidden_states"], range(L + 1)))

Inside the engine's process, a worker's step has the same layers for the tokens of all its requests,
one after another; ``batch`` gives each request its own. They are in the accelerator's memory: copy
them to pinned host memory first, and wait for the copy. A step holds the tokens that it computed:
of a prompt that came in chunks, or whose beginning was cached, those alone. LCF reads the last
token and does not mind; for SIREN and WeightWatch switch chunks and prefix cache off, or use the
file, which has them all.

Older releases, and architectures that were not brought up to date (vllm-project/vllm issue 48124),
count the inputs of blocks alone and leave the last state out without a word: there are then L
layers, which is refused.

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
        hidden_states: [tokens, L + 1, hidden], as the connector writes them; its rows are read with
            a stride.
        layer_ids: the ids that vLLM was asked for, in any order: it keeps them ascending.

    Raises:
        InputError: the ids are not 0 to L, or are not as many as the layers that came.
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
        aux_hidden_states: of a model's forward, L + 1 tensors [tokens of all requests, hidden] in
            host memory; more rows than tokens are what a batch was filled up with.
        query_start_loc: [requests + 1], where each request begins; the first ``num_reqs + 1``
            entries of vLLM's.
        layer_ids: as ``saved``.

    Raises:
        InputError: as ``saved``; the places do not ascend within the rows; or a tensor cannot be
            read in place.
    """
    _check(layer_ids, len(aux_hidden_states))
    return requests(aux_hidden_states, query_start_loc)


def _check(layer_ids: Sequence[int], found: int) -> None:
    if sorted(layer_ids) != list(range(found)):
        raise InputError(
            f"found {found} layers for ids {sorted(layer_ids)}; expected all, 0 (the embedding "
            "output) to L (the state before the final norm): set eagle_aux_hidden_state_layer_ids "
            "to list(range(L + 1)), and vLLM to a release that keeps the last"
        )
