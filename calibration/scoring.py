"""Scores of rows by a guard as it serves: what detectors that are kept make of other texts."""

from collections.abc import Sequence

from layerguard.calibration.fitting import largest
from layerguard.runtime.checks import check_rows
from layerguard.runtime.errors import CalibrationError
from layerguard.runtime.guard import Guard
from layerguard.runtime.rows import Row
from layerguard.runtime.types import Verdict


def score_columns(
    guard: Guard, rows: Sequence[Row], faults: list[str]
) -> dict[str, dict[str, float]]:
    """By detector, the scores of the rows' texts; a row without finite ones goes to ``faults``.

    Raises:
        CalibrationError: no row could be scored.
    """
    scored: list[tuple[Row, Verdict]] = []
    for row, verdict in check_rows(guard, rows, faults, "scoring rows"):
        if any(reading.status == "invalid" for reading in verdict.readings.values()):
            faults.append(f"{row.place}: a score is not finite; export the model in float32")
        else:
            scored.append((row, verdict))
    if not scored:
        raise CalibrationError(
            f"none of {len(rows)} rows could be scored; expected texts: {'; '.join(faults[:3])}"
        )
    return {
        name: largest((row, verdict.readings[name].score) for row, verdict in scored)
        for name in guard.bundle.manifest.detectors
    }
