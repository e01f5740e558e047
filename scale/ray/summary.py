"""The summary of a scoring job, which is merged from those of its parts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from layerguard.calibration.states.moments import Moments
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.types import Verdict


@dataclass(frozen=True, slots=True)
class Scored:
    """What was scored. Parts of it are merged: their counts are added, their moments combined.

    Attributes:
        rows: rows with a verdict.
        flagged: those that the guard flags.
        invalid: those for which a detector gives no finite score; they are flagged.
        scores: by detector, the count, mean and sum of squared deviations of its finite scores,
            each float64 [1].
        faults: one message for each row without a verdict.
    """

    rows: int = 0
    flagged: int = 0
    invalid: int = 0
    scores: Mapping[str, Moments] = field(default_factory=dict)
    faults: tuple[str, ...] = ()

    @classmethod
    def of(cls, verdicts: Sequence[tuple[Row, Verdict]], faults: Sequence[str]) -> Self:
        """The summary of some verdicts."""
        scores: dict[str, list[float]] = {}
        for _, verdict in verdicts:
            for name, reading in verdict.readings.items():
                own = scores.setdefault(name, [])
                own += [reading.score] if reading.status == "ok" else []
        return cls(
            rows=len(verdicts),
            flagged=sum(verdict.flagged for _, verdict in verdicts),
            invalid=sum(verdict.status == "invalid" for _, verdict in verdicts),
            scores={name: Moments.of(np.array(own).reshape(-1, 1)) for name, own in scores.items()},
            faults=tuple(faults),
        )

    def merged(self, other: Self) -> Self:
        """The summary of the rows of both."""
        scores = dict(self.scores)
        for name, own in other.scores.items():
            scores[name] = scores[name].merged(own) if name in scores else own
        return type(self)(
            rows=self.rows + other.rows,
            flagged=self.flagged + other.flagged,
            invalid=self.invalid + other.invalid,
            scores=scores,
            faults=(*self.faults, *other.faults),
        )
