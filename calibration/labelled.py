"""Rows by their label: labelled ones for training and measuring, clean ones for thresholds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from layerguard.runtime.errors import InputError
from layerguard.runtime.rows.jsonl import Row, read_rows
from layerguard.runtime.types import Array


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """The rows of some files that serve, and a sentence for each that is of no use."""

    rows: tuple[Row, ...]
    faults: tuple[str, ...]


def read_labelled(paths: Sequence[Path]) -> LabelledRows:
    """Read the files.

    Raises:
        InputError: a file cannot be opened, or no row has a label.
    """
    found = read_rows(paths)
    good = tuple(row for row in found.good if row.label is not None)
    if not good:
        raise InputError(
            f"{', '.join(map(str, paths))}: found no row with a label; expected "
            '"label": 0 (clean) or 1 (to be flagged)'
        )
    unlabelled = (row for row in found.good if row.label is None)
    faults = [f'{row.place}: found no label; expected "label": 0 or 1' for row in unlabelled]
    return LabelledRows(good, (*found.faults, *faults))


def read_clean(paths: Sequence[Path]) -> LabelledRows:
    """The rows of the files that are not labelled harmful, whether they have a label or not.

    Raises:
        InputError: a file cannot be opened, or no row of it is good.
    """
    found = read_rows(paths)
    clean = tuple(row for row in found.good if row.label != 1)
    harmful = [
        f"{row.place}: found label 1 in --clean; expected clean rows. Harmful ones go to --labelled"
        for row in found.good
        if row.label == 1
    ]
    return LabelledRows(clean, (*found.faults, *harmful))


def labels_of(rows: Sequence[Row]) -> Array:
    """The labels, int64 [n]; rows without one count as clean."""
    return np.array([row.label or 0 for row in rows], dtype=np.int64)
