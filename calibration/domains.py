"""What a guard's thresholds do on each kind of traffic: calibrated on one, tested on another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from layerguard.calibration.figures import above
from layerguard.runtime.decision.policy import Decision
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.types import Array

ALL = "all traffic"
"""Heads what is not of one domain."""


@dataclass(frozen=True, slots=True)
class Cell:
    """Share of the ``n`` clean rows of one domain that another's thresholds flag."""

    calibrated_on: str
    tested_on: str
    n: int
    fpr: float


def limits(decision: Decision, detector: str, rows: Sequence[Row]) -> Array:
    """The threshold of a detector for each row, float64 [n]."""
    return np.array([_of(decision, row.domain)[detector] for row in rows], np.float64)


def guard_flags(
    decision: Decision, scores: Mapping[str, Array], thresholds: Mapping[str, Array | float]
) -> Array:
    """Which rows the guard as a whole flags, bool [n].

    Args:
        decision: who decides.
        scores: by detector, float64 [n]; infinity where invalid.
        thresholds: by detector, one for each row or for all.
    """
    found = [scores[name] for name in decision.enforced]
    flags = [above(scores[name], thresholds[name]) for name in decision.enforced]
    together = np.logical_and if decision.policy == "all" else np.logical_or
    invalid = ~np.isfinite(found).all(axis=0)
    flagged: Array = together.reduce(flags) | invalid
    return flagged


def matrix(
    decision: Decision, scores: Mapping[str, Array], rows: Sequence[Row]
) -> tuple[Cell, ...]:
    """A cell for each set of thresholds and each domain that clean rows are of.

    Empty where neither the bundle nor the rows tell domains apart.
    """
    clean = np.array([row.label == 0 for row in rows], bool)
    domains = np.array([row.domain or ALL for row in rows])
    tested = sorted(set(domains[clean].tolist()))
    if len(tested) < 2 and len(decision.limits) < 2:
        return ()
    cells = []
    for name, limit in decision.limits.items():
        flagged = guard_flags(decision, scores, limit.thresholds)
        for domain in tested:
            here = clean & (domains == domain)
            share = float(flagged[here].mean())
            cells.append(Cell(name or ALL, domain, int(here.sum()), share))
    return tuple(cells)


def matrix_table(cells: Sequence[Cell]) -> tuple[list[str], list[list[str]]]:
    """The cells as a header and rows, in per cent."""
    tested = list(dict.fromkeys(cell.tested_on for cell in cells))
    sizes = {cell.tested_on: cell.n for cell in cells}
    shares = {(cell.calibrated_on, cell.tested_on): f"{100 * cell.fpr:.1f}" for cell in cells}
    header = ["thresholds of \\ FPR on", *(f"{domain} ({sizes[domain]})" for domain in tested)]
    body = [
        [name, *(shares[name, domain] for domain in tested)]
        for name in dict.fromkeys(cell.calibrated_on for cell in cells)
    ]
    return header, body


def _of(decision: Decision, domain: str | None) -> Mapping[str, float]:
    return decision.limits[domain if domain in decision.limits else None].thresholds
