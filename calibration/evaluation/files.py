"""An evaluation as files that other programs read: JSON, and a table of rows as Parquet."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from layerguard.calibration.evaluation.analysis import Analysis
from layerguard.calibration.evaluation.evaluate import Evaluation
from layerguard.calibration.evaluation.rates import GroupRates, Rate
from layerguard.calibration.evaluation.scored_rows import ScoredRow
from layerguard.calibration.report.page import write_page
from layerguard.runtime.errors import InputError, MachineError
from layerguard.runtime.types import json_ready

SCHEMA = 1
"""Version of the JSON file and of the columns of the Parquet file."""


def record(row: ScoredRow, *, texts: bool) -> dict[str, Any]:
    """One row as flat columns, such as ``lcf.score``; the text only if ``texts``."""
    columns: dict[str, Any] = {
        "id": row.row.id,
        "file": row.file,
        "source": row.source,
        "label": row.label,
        "tokens": row.tokens,
        "truncated": row.truncated,
        "flagged": row.flagged,
        "p_value": row.p_value,
    }
    for name, reading in row.readings.items():
        columns |= {
            f"{name}.score": reading.score,
            f"{name}.threshold": reading.threshold,
            f"{name}.p_value": reading.p_value,
            f"{name}.flagged": reading.flagged,
            f"{name}.evidence": [asdict(item) for item in reading.evidence],
            f"{name}.spans": [[span.start, span.end] for span in reading.spans],
        }
    columns |= {f"{name}.score": score for name, score in row.baselines.items()}
    return columns | ({"text": row.text} if texts else {})


def write_json(path: Path, evaluation: Evaluation, analysis: Analysis, *, texts: bool) -> None:
    """Write summary and rows as one JSON object; numbers that are not finite become null.

    Raises:
        InputError: the file cannot be written.
    """
    value = {
        "schema": SCHEMA,
        "bundle_id": evaluation.bundle_id,
        "guard": asdict(evaluation.guard),
        "files": [asdict(file) for file in evaluation.files],
        "domains": [asdict(cell) for cell in evaluation.domains],
        "total": _rates(analysis.total),
        "by_source": [_rates(group) for group in analysis.by_source],
        "by_length": [_rates(group) for group in analysis.by_length],
        "rankings": [_plain(asdict(ranking)) for ranking in analysis.rankings],
        "confusions": [asdict(confusion) for confusion in analysis.confusions],
        "p_values": _plain(asdict(analysis.p_values)) if analysis.p_values else None,
        "agreement": [asdict(pair) for pair in analysis.agreement],
        "faults": list(evaluation.faults),
        "rows": [record(row, texts=texts) for row in evaluation.rows],
    }
    write_page(path, json.dumps(json_ready(value), ensure_ascii=False, allow_nan=False) + "\n")


def write_parquet(path: Path, evaluation: Evaluation, *, texts: bool) -> None:
    """Write the rows as a Parquet file with the columns of ``record``.

    Raises:
        MachineError: pyarrow is not installed.
        InputError: the file cannot be written.
    """
    check_parquet()
    import pyarrow as pa  # noqa: PLC0415  an extra of its own
    from pyarrow import parquet  # noqa: PLC0415

    table = pa.Table.from_pylist([record(row, texts=texts) for row in evaluation.rows])
    try:
        parquet.write_table(table, path)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected a file to write to") from error


def check_parquet() -> None:
    """Check, before anything is measured, that Parquet files can be written.

    Raises:
        MachineError: pyarrow is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: F401, PLC0415
    except ImportError as error:
        raise MachineError(
            "Parquet needs pyarrow, which is not installed: pip install 'layerguard[parquet]'. The "
            "JSON file holds the same rows"
        ) from error


def _rates(group: GroupRates) -> dict[str, Any]:
    """The rates of a group with their shares."""
    return {
        "group": group.group,
        "false_alarms": _rate(group.false_alarms),
        "detection": _rate(group.detection),
        "false_alarms_by_detector": {
            name: _rate(own) for name, own in group.false_alarms_by_detector.items()
        },
    }


def _rate(rate: Rate | None) -> dict[str, Any] | None:
    return None if rate is None else {"share": rate.share, **asdict(rate)}


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping with arrays as lists."""
    return {
        key: item.tolist() if isinstance(item, np.ndarray) else item for key, item in value.items()
    }
