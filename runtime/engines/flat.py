"""Splits a flat batch, in which the tokens of all requests are concatenated without padding."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from layerguard.runtime.errors import InputError
from layerguard.runtime.kernels import gathered
from layerguard.runtime.types import Array


def requests(layers: Sequence[Any], starts: Sequence[int] | Array) -> list[tuple[Array, ...]]:
    """The states of each request, as views of the batch.

    Args:
        layers: L + 1 arrays [tokens of all requests, hidden]. Padding rows after the last request
            are ignored.
        starts: [requests + 1], the start of each request, followed by the end of the last one.
            From lengths: ``[0, *itertools.accumulate(lengths)]``.

    Raises:
        InputError: the starts do not increase from 0 within the rows, or a layer cannot be read.
    """
    arrays = gathered(layers)
    rows = min(array.shape[0] for array in arrays)
    places = [int(place) for place in np.asarray(starts).ravel()]
    if len(places) < 2 or places[0] != 0 or places[-1] > rows:
        raise InputError(
            f"starts: found {places[:3]} ... {places[-1:]}; expected 0, then the end of each "
            f"request in order, at most {rows}, the number of rows of the states"
        )
    for number, (start, stop) in enumerate(pairwise(places)):
        if stop <= start:
            raise InputError(
                f"starts: found {stop} after {start}, so request {number} has no tokens; expected "
                "increasing numbers. Leave out the entries that pad the batch"
            )
    return [tuple([array[a:b] for array in arrays]) for a, b in pairwise(places)]
