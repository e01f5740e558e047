"""Requests of a batch, whose tokens engines lay one after another without padding."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from layerguard.runtime.errors import InputError
from layerguard.runtime.kernels import gathered
from layerguard.runtime.types import Array


def requests(layers: Sequence[Any], starts: Sequence[int] | Array) -> list[tuple[Array, ...]]:
    """The states of each request, views of the batch's.

    Args:
        layers: L + 1 arrays [tokens of all requests, hidden]; rows behind the last request, with
            which engines fill a batch up, are left out.
        starts: [requests + 1], where each request begins and, last, where the last one ends. From
            lengths: ``[0, *itertools.accumulate(lengths)]``.

    Raises:
        InputError: the starts do not ascend from 0 within the rows, or a layer cannot be read.
    """
    arrays = gathered(layers)
    rows = min(array.shape[0] for array in arrays)
    places = [int(place) for place in np.asarray(starts).ravel()]
    if len(places) < 2 or places[0] != 0 or places[-1] > rows:
        raise InputError(
            f"starts: found {places[:3]} ... {places[-1:]}; expected 0, the end of each request in "
            f"turn, and no more than the states' {rows} rows"
        )
    for number, (start, stop) in enumerate(pairwise(places)):
        if stop <= start:
            raise InputError(
                f"starts: found {stop} after {start}, so request {number} has no tokens; expected "
                "ascending numbers. Leave out the entries with which the engine fills a batch up"
            )
    return [tuple([array[a:b] for array in arrays]) for a, b in pairwise(places)]
