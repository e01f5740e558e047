"""The directions that WeightWatch watches.

"Watch the Weights", arXiv 2508.00161: the leading left singular vectors of tuned minus base
weights, of each block's attention output and feed-forward output.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from tqdm import tqdm

from layerguard.calibration.defaults import RANKS
from layerguard.calibration.weights.spectra import leading
from layerguard.calibration.weights.tuning import Tuning
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.errors import CalibrationError
from layerguard.runtime.kernels import DirectionsKernel
from layerguard.runtime.types import Array, Tap

PUBLISHED_DROP = 3
"""Top states that the published rule leaves out because of float16."""


def directions(
    tuning: Tuning, layers: int, *, ranks: int = RANKS, drop: int = 0, kept: int | None = None
) -> dict[str, Array]:
    """The directions of a tuned model; shows a progress bar on a terminal.

    Singular values that are noise give no direction (see ``weights.spectra``).

    Args:
        tuning: the weight changes.
        layers: number of blocks of the watched model.
        ranks: largest number of directions of each matrix.
        drop: number of top states that are left out.
        kept: the highest state that the export kept; higher states are left out too.

    Returns:
        directions float32 [K, hidden], unit rows, ordered by state, part and rank; the component of
        largest magnitude is positive. layers int32 [K], the index of the state after the block;
        parts uint8 [K], 0 feed-forward output, 1 attention output; ranks int32 [K], from 0;
        singular_values float32 [K].

    Raises:
        CalibrationError: no watched matrix changed, or the tuned model has another number of
            blocks.
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
    """The tap that reads the extreme cosines of texts along ``directions``."""
    kernel = DirectionsKernel(directions["directions"], directions["layers"])
    return replace(REGISTRY["weightwatch"].tap, directions=kernel)
