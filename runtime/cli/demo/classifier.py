"""The first part of the demo: a guard on an encoder checks a page of unseen prompts."""

from collections.abc import Sequence
from pathlib import Path

from layerguard.runtime.cli.demo.steps import step
from layerguard.runtime.cli.table import render, shorten, word
from layerguard.runtime.guard import Guard
from layerguard.runtime.rows.jsonl import Row, read_rows
from layerguard.runtime.types import Verdict

_TARGET_FPR = "0.05"


def run(model: Path, out: Path, prompts: Path) -> int:
    """Export, calibrate, score and print the table.

    Args:
        model: folder of the encoder.
        out: bundle to write.
        prompts: folder with ``clean.jsonl``, ``harmful.jsonl``, both with ``-languages`` too, and
            ``fresh.jsonl``.

    Returns:
        The exit code of the first step that failed, else 0.
    """
    clean, bad = (
        [str(prompts / f"{kind}{more}.jsonl") for more in ("", "-languages")]
        for kind in ("clean", "harmful")
    )
    code = step("export", str(model), "-o", str(out), "--id", "all-MiniLM-L6-v2") or step(
        "calibrate", str(out), "--clean", *clean, "--labelled", *clean, *bad,
        "--target-fpr", _TARGET_FPR,
    )  # fmt: skip
    if code:
        return code
    rows = read_rows([prompts / "fresh.jsonl"]).good
    print(f"\n$ layerguard score {out} --input fresh.jsonl    ({len(rows)} prompts never seen)\n")
    guard = Guard.load(out)
    verdicts = [guard.check_requests([row.request])[0] for row in rows]
    print(_table(rows, verdicts))
    print(_summary(rows, verdicts, out))
    return 0


def _table(rows: Sequence[Row], verdicts: Sequence[Verdict]) -> str:
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


def _summary(rows: Sequence[Row], verdicts: Sequence[Verdict], out: Path) -> str:
    pairs = list(zip(rows, verdicts, strict=True))
    caught = sum(verdict.flagged for row, verdict in pairs if row.label == 1)
    alarms = sum(verdict.flagged for row, verdict in pairs if row.label == 0)
    bad = sum(row.label == 1 for row in rows)
    return (
        f"\nflagged {caught} of {bad} bad prompts and {alarms} of {len(rows) - bad} clean ones "
        f"(scores are score/threshold).\nThe bundle is in {out}: "
        f'layerguard score {out} "your own text"'
    )
