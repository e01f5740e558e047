"""The directions that WeightWatch watches: what tuning writes into the residual stream.

"Watch the Weights", arXiv 2508.00161: the leading left singular vectors of tuned minus base weights
of each block's attention output and feed-forward output.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from tqdm import tqdm

from layerguard.calibration.weight_spectra import leading
from layerguard.calibration.weights import Tuning
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.errors import CalibrationError
from layerguard.runtime.kernels import DirectionsKernel
from layerguard.runtime.types import Array, Tap

RANKS = 20
"""Directions of each matrix, as published."""

PUBLISHED_DROP = 3
"""Top states that the published rule leaves out, out of care for float16."""


def directions(
    tuning: Tuning, layers: int, *, ranks: int = RANKS, drop: int = 0, kept: int | None = None
) -> dict[str, Array]:
    """The directions of a tuned model; a progress bar on a terminal.

    Singular values that are noise give none (see ``weight_spectra``).

    Args:
        tuning: what was changed.
        layers: blocks of the model that will be watched.
        ranks: directions of each matrix at most.
        drop: top states that are left out.
        kept: states above this one are left out as well: those that an export cut off.

    Returns:
        directions float32 [K, D], unit rows, by state, then part, then rank; the component of
        largest magnitude is positive. layers int32 [K], the index of the state after the block;
        parts uint8 [K], 0 feed-forward output, 1 attention output; ranks int32 [K], 0 first;
        singular_values float32 [K].

    Raises:
        CalibrationError: nothing was changed where it would be watched, or the tuned model has
            another number of blocks.
    """
    if tuning.blocks not in (None, layers) or any(block >= layers for block, _ in tuning.places):
        blocks = tuning.blocks or 1 + max(block for block, _ in tuning.places)
        raise CalibrationError(
            f"the tuned weights have {blocks} blocks; expected {layers}, those of the bundle. Give "
            "the weights that the bundle was exported from"
        )
    highest = min(layers - drop, layers if kept is None else kept)
    watched = [place for place in tuning.places if place[0] + 1 <= highest]
    rows: list[Array] = []
    values: list[Array] = []
    origin: list[tuple[int, int, int]] = []
    for block, part in tqdm(watched, desc="weights", unit="matrix", disable=None):
        spectrum = leading(tuning.change(block, part), ranks)
        rows.append(spectrum.vectors)
        values.append(spectrum.values)
        origin += [(block + 1, part, rank) for rank in range(len(spectrum.values))]
    if not origin:
        raise CalibrationError(
            f"found no change above noise in {len(watched)} matrices of states 1 to {highest}; "
            "expected a tuned model that differs from its base"
        )
    states, parts, order = np.array(origin).T
    return {
        "directions": np.concatenate(rows).astype(np.float32),
        "layers": states.astype(np.int32),
        "parts": parts.astype(np.uint8),
        "ranks": order.astype(np.int32),
        "singular_values": np.concatenate(values).astype(np.float32),
    }


def watching(directions: Mapping[str, Array]) -> Tap:
    """The tap that reads texts' extremes along ``directions``."""
    kernel = DirectionsKernel(directions["directions"], directions["layers"])
    return replace(REGISTRY["weightwatch"].tap, directions=kernel)
