"""Select rows by label: labelled rows for training and evaluation, clean rows for thresholds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from layerguard.calibration.rows.sources import RowSources, read_sources, shown
from layerguard.runtime.errors import InputError
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.types import Array


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """The rows that can be used, and one message for each row that cannot."""

    rows: tuple[Row, ...]
    faults: tuple[str, ...]


def read_labelled(sources: RowSources) -> LabelledRows:
    """Read the rows that have a label.

    Raises:
        InputError: a file cannot be opened, or no row has a label.
    """
    read = read_sources(sources)
    good = tuple(row for row in read.good if row.label is not None)
    if not good:
        raise InputError(
            f"{shown(sources)}: found no row with a label; expected "
            '"label": 0 (clean) or 1 (to be flagged)'
        )
    unlabelled = (row for row in read.good if row.label is None)
    faults = [f'{row.place}: found no label; expected "label": 0 or 1' for row in unlabelled]
    return LabelledRows(good, (*read.faults, *faults))


def read_clean(sources: RowSources) -> LabelledRows:
    """Read the rows that are not labelled harmful; a label is not required.

    Raises:
        InputError: a file cannot be opened, or has no good row.
    """
    read = read_sources(sources)
    clean = tuple(row for row in read.good if row.label != 1)
    harmful = [
        f"{row.place}: found label 1 in --clean; expected clean rows. Harmful ones go to --labelled"
        for row in read.good
        if row.label == 1
    ]
    return LabelledRows(clean, (*read.faults, *harmful))


def labels_of(rows: Sequence[Row]) -> Array:
    """The labels, int64 [n]; a row without a label counts as clean."""
    return np.array([row.label or 0 for row in rows], dtype=np.int64)
