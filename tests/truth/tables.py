"""Results of the truth tables: printed, and kept in ``results``."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench.harness import report

RESULTS = Path(__file__).resolve().parent / "results"


def keep(name: str, question: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows as a table and write them with the machine's card to ``results/NAME.json``."""
    report(name, question, rows, folder=RESULTS)


def keep_models(name: str, question: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """``keep``, with the rows of the other models of the last run, by the column ``model``."""
    measured = {row["model"] for row in rows}
    others = [row for row in kept(name) if row["model"] not in measured]
    keep(name, question, sorted([*others, *rows], key=lambda row: str(row["model"])))


def kept(name: str) -> list[dict[str, Any]]:
    """The rows of the last run; none if there was none."""
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        return []
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return rows
