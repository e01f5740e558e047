"""What does int8 cost a guard? float32 and int8 of one model, calibrated alike, on the same rows.

    python -m tests.bench.int8_parity

Exports all-MiniLM-L6-v2 twice, calibrates both on ToxicChat's training part (its clean rows for the
thresholds, all rows for SIREN) at a target of 1 %, and runs ``layerguard parity`` on the clean and
on the harmful rows of its test part: what is flagged of them is the guard's false positive rate,
and what it finds. ``calibrate --test`` drops the rows whose text the test part holds.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.harness import report
from tests.bench.minilm import CACHE, model_folder
from tests.bench.safety_sets import contract, layerguard, read, write

FOLDER = CACHE / "int8-parity"
TARGET = "0.01"
Row = dict[str, Any]


def main() -> int:
    """Print a line for each detector and for the verdicts, of clean rows and of harmful ones."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    train, test = [
        [contract(row) for row in read(f"siren_toxicchat_{part}")] for part in ("train", "test")
    ]
    files = {
        "train": write(FOLDER / "train.jsonl", train),
        "clean-train": write(FOLDER / "clean-train.jsonl", _labelled(train, 0)),
        "clean": write(FOLDER / "clean.jsonl", _labelled(test, 0)),
        "harmful": write(FOLDER / "harmful.jsonl", _labelled(test, 1)),
    }
    bundles = [_bundle(dtype, files) for dtype in ("float32", "int8")]
    lines = [line for part in ("clean", "harmful") for line in _compare(bundles, files[part])]
    report(
        "int8_parity",
        "MiniLM in float32 (a) and int8 (b), both calibrated on ToxicChat's training part at a "
        "target of 1 %: per cent of the test part that is flagged, flips, score differences",
        lines,
    )
    return 0


def _bundle(dtype: str, files: dict[str, Path]) -> Path:
    bundle = FOLDER / dtype
    name = ("--id", "all-MiniLM-L6-v2", "--dtype", dtype)
    layerguard("export", str(model_folder()), "-o", str(bundle), *name)
    layerguard(
        "calibrate", str(bundle), "--clean", str(files["clean-train"]), "--labelled",
        str(files["train"]), "--test", str(files["clean"]), str(files["harmful"]), "--target-fpr",
        TARGET,
    )  # fmt: skip
    return bundle


def _compare(bundles: Sequence[Path], rows: Path) -> list[Row]:
    """The lines of ``parity --json``, with flips counted by direction."""
    any_flips = ("--max-flips", "1000000")
    output = layerguard("parity", *map(str, bundles), str(rows), *any_flips, "--json", quiet=True)
    return [_line(rows.stem, json.loads(line)) for line in output.splitlines()]


def _line(part: str, found: Row) -> Row:
    flips = [flip["flagged_by"] for flip in found["flips"]]
    return {
        "rows": part,
        "n": found["rows"],
        "what": found.get("detector", "verdict"),
        "flagged_a": 100 * found["flagged_a"],
        "flagged_b": 100 * found["flagged_b"],
        "flips": len(flips),
        "by_a_alone": flips.count("a"),
        "by_b_alone": flips.count("b"),
        "largest_difference": found.get("largest_difference"),
        "median_difference": found.get("median_difference"),
        "rank_correlation": found.get("rank_correlation"),
    }


def _labelled(rows: Sequence[Row], label: int) -> list[Row]:
    return [row for row in rows if row["label"] == label]


if __name__ == "__main__":
    sys.exit(main())
