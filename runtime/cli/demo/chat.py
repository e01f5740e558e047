"""The second part of the demo: a chat model answers while a guard checks every token.

Only SIREN is calibrated, on labelled rows: LCF looks for planted behaviour, of which there is no
evidence here.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from layerguard.runtime.cli.demo.steps import step
from layerguard.runtime.cli.table import render, shorten, word
from layerguard.runtime.generation.event import Event
from layerguard.runtime.guard import Guard
from layerguard.runtime.rows.jsonl import Row, read_rows
from layerguard.runtime.types import Verdict

_TARGET_FPR = "0.05"
_EVERY = 4
"""Every fourth clean prompt, and at most as many harmful ones, so that it takes two minutes."""

_PROMPTS_PER_LABEL = 4
"""Number of clean prompts, and of bad prompts, that the model answers."""

_TOKENS = 24


@dataclass(frozen=True, slots=True)
class Answer:
    """The verdict on one prompt and its answer.

    Attributes:
        verdict: the first flagged verdict, or the last one if none was flagged.
        place: where it was flagged: ``prompt``, or the number of a token.
    """

    verdict: Verdict
    place: str


def run(out: Path, prompts: Path) -> int:
    """Calibrate, answer and print the table.

    Args:
        out: the exported bundle.
        prompts: as in ``classifier.run``.

    Returns:
        The exit code of the calibration.
    """
    with TemporaryDirectory() as folder:
        clean, bad = Path(folder) / "clean.jsonl", Path(folder) / "harmful.jsonl"
        taken = _thin(prompts / "clean.jsonl", clean, _EVERY)
        _thin(prompts / "harmful.jsonl", bad, 1, taken)
        code = step(
            "calibrate", str(out), "--labelled", str(clean), str(bad), "--target-fpr", _TARGET_FPR
        )
        if code:
            return code
    guard = Guard.load(out)
    rows = _selected(read_rows([prompts / "fresh.jsonl"]).good)
    print(f'\n$ layerguard generate {out} "..." --max-new-tokens {_TOKENS}    ({len(rows)} times)')
    answers = [_answer(guard, row) for row in rows]
    print(f"\n{_table(rows, answers)}")
    print(
        "\nA flagged answer is withheld (--on-flag log shows it). Layers: the layers with the "
        "largest contribution to the score.\n"
        f'The bundle is in {out}: layerguard generate {out} "your own question"'
    )
    return 0


def _thin(source: Path, target: Path, every: int, most: int | None = None) -> int:
    """Write every n-th row without its domain, at most ``most`` rows; return their number."""
    lines = source.read_text(encoding="utf-8").splitlines()[::every][:most]
    rows = [{k: v for k, v in json.loads(line).items() if k != "domain"} for line in lines]
    target.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return len(rows)


def _selected(rows: Sequence[Row]) -> list[Row]:
    """The first clean and the first bad prompts."""
    return [
        row
        for label in (0, 1)
        for row in [r for r in rows if r.label == label][:_PROMPTS_PER_LABEL]
    ]


def _answer(guard: Guard, row: Row) -> Answer:
    """Generate the answer to a prompt, and print its text as soon as it is released."""
    print(f"\n> {shorten(row.request.prompt, 100)}\n  ", end="", flush=True)
    flagged, place, tokens = None, "", 0
    last: Event | None = None
    for last in guard.generate(row.request.prompt, max_new_tokens=_TOKENS):
        print(last.text.replace("\n", "\n  "), end="", flush=True)
        tokens += last.kind == "token"
        if last.verdict.flagged and flagged is None:
            flagged, place = last.verdict, f"token {tokens}" if tokens else "prompt"
    print()
    assert last is not None
    return Answer(flagged or last.verdict, place)


def _table(rows: Sequence[Row], answers: Sequence[Answer]) -> str:
    body = [
        [
            row.request.prompt,
            row.domain or "",
            word(answer.verdict),
            answer.place,
            *_why(answer.verdict),
        ]
        for row, answer in zip(rows, answers, strict=True)
    ]
    return render(["prompt", "is", "verdict", "at", "detector", "layers"], body)


def _why(verdict: Verdict) -> tuple[str, str]:
    """The detectors that flagged, and the layers that contributed most to their scores."""
    flagged = [reading for reading in verdict.readings.values() if reading.flagged]
    layers = [", ".join(str(item.layer) for item in reading.evidence[:3]) for reading in flagged]
    return "; ".join(reading.detector for reading in flagged), "; ".join(layers)
