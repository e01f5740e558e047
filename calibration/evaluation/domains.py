"""False-positive rates by domain: the thresholds of each domain on the rows of every domain."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from layerguard.calibration.evaluation.results import above
from layerguard.runtime.decision.policy import Decision
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.types import Array

ALL = "all traffic"
"""Label for thresholds and rows that belong to no domain."""


@dataclass(frozen=True, slots=True)
class Cell:
    """Share of one domain's ``n`` clean rows that the thresholds of a domain flag."""

    calibrated_on: str
    tested_on: str
    n: int
    fpr: float


def guard_flags(
    decision: Decision, scores: Mapping[str, Array], thresholds: Mapping[str, Array | float]
) -> Array:
    """Which rows the guard as a whole flags, bool [n].

    Args:
        decision: the deciding detectors and the policy.
        scores: by detector, float64 [n]; infinity where invalid.
        thresholds: by detector, one threshold for each row or one for all.
    """
    enforced = [scores[name] for name in decision.enforced]
    flags = [above(scores[name], thresholds[name]) for name in decision.enforced]
    together = np.logical_and if decision.policy == "all" else np.logical_or
    invalid = ~np.isfinite(enforced).all(axis=0)
    flagged: Array = together.reduce(flags) | invalid
    return flagged


def matrix(
    decision: Decision, scores: Mapping[str, Array], rows: Sequence[Row]
) -> tuple[Cell, ...]:
    """One cell for each set of thresholds and each domain of the clean rows.

    Empty if neither the bundle nor the rows have more than one domain.
    """
    clean = np.array([row.label == 0 for row in rows], bool)
    domains = np.array([row.domain or ALL for row in rows])
    tested = sorted(set(domains[clean].tolist()))
    if len(tested) < 2 and len(decision.limits) < 2:
        return ()
    cells = []
    for name, domain_limits in decision.limits.items():
        flagged = guard_flags(decision, scores, domain_limits.thresholds)
        for domain in tested:
            in_domain = clean & (domains == domain)
            share = float(flagged[in_domain].mean())
            cells.append(Cell(name or ALL, domain, int(in_domain.sum()), share))
    return tuple(cells)


def matrix_table(cells: Sequence[Cell]) -> tuple[list[str], list[list[str]]]:
    """The cells as a header and rows of a table, in per cent."""
    tested = list(dict.fromkeys(cell.tested_on for cell in cells))
    sizes = {cell.tested_on: cell.n for cell in cells}
    shares = {(cell.calibrated_on, cell.tested_on): f"{100 * cell.fpr:.1f}" for cell in cells}
    header = ["thresholds of \\ FPR on", *(f"{domain} ({sizes[domain]})" for domain in tested)]
    body = [
        [name, *(shares[name, domain] for domain in tested)]
        for name in dict.fromkeys(cell.calibrated_on for cell in cells)
    ]
    return header, body
