"""Defaults and choices that the library and the commands share; nothing here needs an extra."""

from typing import Literal

Mode = Literal["cross-fit", "by-source", "loo", "reference"]
"""How thresholds are set; a detector without leave-one-out uses cross-fitting instead."""

DEFAULT_TARGET_FPR = 0.01
"""Default share of clean traffic that may be flagged."""

DEFAULT_MAX_SHIFT = 3.0
"""Default multiple of the target that may be flagged of a source that a detector has not seen."""

PUBLISHED_TAU = 0.05
"""Threshold on the share of misaligned answers, arXiv 2606.07631 version 1 (0.06 in version 2)."""

RANKS = 20
"""Directions of each matrix that WeightWatch watches, as published."""
