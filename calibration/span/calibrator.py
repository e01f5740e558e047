"""The ``Calibrator`` of span, which is fitted to windows of labelled rows that have ``spans``."""

import numpy as np

from layerguard.calibration.calibrator import Calibrator, Fit, Inputs
from layerguard.calibration.rows.leakage import prompt_group, words_group
from layerguard.calibration.span.sample import WindowSample
from layerguard.calibration.span.training import train, window_scores
from layerguard.calibration.stages import FittedParameters
from layerguard.calibration.states.blockwise import States
from layerguard.calibration.states.collect import RecordedStates
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.text.request import clean
from layerguard.runtime.text.tokens import Places, TokenReader
from layerguard.runtime.types import Array, Tap

WINDOW = 16
"""Tokens of a window: about one sentence."""


def layers_read(blocks: int) -> tuple[int, ...]:
    """The states that the probe reads, a little above the middle: 16 and 20 of 30 blocks."""
    return tuple(sorted({max(1, round(8 * blocks / 15)), max(1, round(2 * blocks / 3))}))


def inside(row: Row, windows: Array, text: str, places: Places) -> Array:
    """The share of each window's tokens in an injection, [windows]; NaN if its place is not known.

    Args:
        row: the row.
        windows: first token of each window, and the token after its last one, [windows, 2].
        text: the text that was read.
        places: the characters of each of its tokens.
    """
    if not row.label:
        return np.zeros(len(windows))
    held = np.zeros(len(places) + 1)
    for start, end in _in_text(row, text):
        held[1:] += [first < end and last > start for first, last in places]
    if not held.any():
        return np.full(len(windows), np.nan)
    sums = np.cumsum(np.minimum(held, 1))
    first, last = windows.astype(int).T
    shares: Array = (sums[last] - sums[first]) / np.maximum(last - first, 1)
    return shares


def _in_text(row: Row, text: str) -> list[tuple[int, int]]:
    """The row's spans as places in the text that was read, from which markers were removed."""
    found = []
    for start, end in row.spans or ():
        words = clean(row.request.prompt[start:end])
        place = text.find(words)
        if place >= 0:
            found.append((place, place + len(words)))
    return found


def _group(row: Row) -> str:
    """Rows with the same injection form a group, else rows with the same prompt."""
    words = [row.request.prompt[start:end] for start, end in row.spans or ()]
    return words_group(" ".join(words)) or prompt_group(row)


def _prepare(inputs: Inputs) -> Fit:
    layers = layers_read(inputs.model.layers)
    reader, seed = inputs.reader, inputs.options.seed
    assert reader is not None, "fits read the bundle's tokenizer"
    tap = Tap("content", "window", probe=WindowSample(layers, WINDOW))

    def fit(recorded: RecordedStates[States]) -> FittedParameters:
        shares = np.concatenate([_shares(recorded, block, rows, reader)
                                 for rows, block in recorded.states.blocks()])  # fmt: skip
        owners = [recorded.rows[row] for row in recorded.owner]
        used = np.array([not row.label or row.spans is not None for row in owners])
        groups = list(map(_group, owners))
        return train(recorded.states, shares, layers, WINDOW, groups, seed, used)

    return Fit(tap, "cross-fit", fit, window_scores)


def _shares(
    recorded: RecordedStates[States], block: Array, rows: slice, reader: TokenReader
) -> Array:
    """``inside`` of a block of recorded rows, [rows, windows]."""
    owners = recorded.owner
    found = []
    for number, windows in enumerate(block.swapaxes(0, 1), rows.start):
        row = recorded.rows[owners[number]]
        window = number - int(np.searchsorted(owners, owners[number]))
        found.append(inside(row, windows[:, :2], *reader.places(row.request)[window]))
    return np.stack(found)


SPAN = Calibrator(
    "span",
    "labelled",
    lambda inputs: any(row.spans is not None for row in inputs.labelled),
    _prepare,
)
