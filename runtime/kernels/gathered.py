"""States that another engine computed, as numpy views of its memory."""

from typing import Any

from layerguard.runtime.errors import InputError
from layerguard.runtime.kernels.arrays import plain
from layerguard.runtime.kernels.host import host, offers_memory
from layerguard.runtime.types import Array


def gathered(states: Any) -> tuple[Array, ...]:
    """One numpy array per layer; values are neither copied nor read.

    Args:
        states: a sequence of arrays, one per layer, or one array of all layers; see ``host`` for
            the accepted arrays.

    Raises:
        InputError: there are no layers, or some are not arrays in host memory; each is listed.
    """
    try:
        whole = host(states) if offers_memory(states) else states
        layers = [whole[index] for index in range(len(whole))]
    except InputError as error:
        raise InputError(f"states: {error}") from error
    except (TypeError, KeyError, IndexError) as error:
        raise _no_layers(states, str(error)) from error
    try:
        arrays = tuple([host(layer) for layer in layers])
    except InputError:
        plain(tuple(layers))  # lists every fault of every layer
        raise
    if not arrays or not arrays[0].ndim:
        raise _no_layers(states, "it holds no layers")
    return arrays


def _no_layers(states: Any, reason: str) -> InputError:
    return InputError(
        f"states: found {type(states).__name__} ({reason}); expected L + 1 arrays [tokens, "
        "hidden], or one array [L + 1, tokens, hidden]"
    )
