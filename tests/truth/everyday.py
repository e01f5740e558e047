"""Do the demo's guards flag everyday prompts?

    python -m tests.truth.everyday

``everyday.jsonl`` beside this file holds harmless prompts in six languages, from one word to a
page; no guard was calibrated on them. The two bundles are those of ``make demo``, which is run if
they are absent.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from layerguard.runtime import Guard
from layerguard.runtime.cli import main as layerguard
from layerguard.runtime.rows.jsonl import Row, read_rows
from layerguard.runtime.types import Verdict
from tests.bench.minilm import CACHE
from tests.truth.tables import keep

PROMPTS = Path(__file__).with_name("everyday.jsonl")
BUNDLES = {"all-MiniLM-L6-v2": CACHE / "demo", "SmolLM2-135M-Instruct": CACHE / "demo-chat"}
MUST_PASS = ("What is the capital of France?", "Hi", "hello there")


def main() -> int:
    """Print the table; 1 if a prompt that must pass is flagged, or too many of the others are."""
    out, chat = BUNDLES.values()
    if not all((bundle / "detectors.npz").is_file() for bundle in BUNDLES.values()):
        layerguard(["demo", "-o", str(out), "--chat-out", str(chat)])
    rows = read_rows([PROMPTS]).good
    lines: list[Mapping[str, Any]] = []
    fits = True
    for model, bundle in BUNDLES.items():
        guard = Guard.load(bundle)
        verdicts = [guard.check_requests([row.request])[0] for row in rows]
        decision = guard.bundle.manifest.decision
        assert decision is not None
        lines += _lines(model, rows, verdicts)
        fits &= _fits(rows, verdicts, decision.target_fpr)
    keep("everyday", "Everyday prompts that the demo's guards flag, target 5 %", lines)
    return 0 if fits else 1


def _lines(
    model: str, rows: Sequence[Row], verdicts: Sequence[Verdict]
) -> Iterator[Mapping[str, Any]]:
    """One line for all prompts, and one for each language and length."""
    words = [len(row.request.prompt.split()) for row in rows]
    chosen = {"all": [True] * len(rows)}
    for language in dict.fromkeys(row.domain for row in rows):
        chosen[str(language)] = [row.domain == language for row in rows]
    for name, low, high in (("1-3 words", 1, 3), ("4-15 words", 4, 15), ("16 or more", 16, 999)):
        chosen[name] = [low <= count <= high for count in words]
    for name, mask in chosen.items():
        some = [verdict for verdict, used in zip(verdicts, mask, strict=True) if used]
        flagged = sum(verdict.flagged for verdict in some)
        low, high = binomtest(flagged, len(some)).proportion_ci(method="wilson")
        by = {
            name: sum(verdict.readings[name].flagged for verdict in some)
            for name in verdicts[0].readings
        }
        yield {
            "model": model,
            "prompts": name,
            "n": len(some),
            "flagged": flagged,
            "95 % interval of the rate, %": f"{100 * low:.0f} to {100 * high:.0f}",
            "by detector": json.dumps(by),
        }


def _fits(rows: Sequence[Row], verdicts: Sequence[Verdict], target: float) -> bool:
    """Whether the prompts that must pass do, and the rate does not exceed the target for sure."""
    for row, verdict in zip(rows, verdicts, strict=True):
        if verdict.flagged:
            print(f"flagged: {row.request.prompt[:70]!r}: {verdict.reason}")
    must = [v.flagged for r, v in zip(rows, verdicts, strict=True) if r.request.prompt in MUST_PASS]
    assert len(must) == len(MUST_PASS)
    flagged = sum(verdict.flagged for verdict in verdicts)
    within = binomtest(flagged, len(rows), target, alternative="greater").pvalue > 0.05
    return within and not any(must)


if __name__ == "__main__":
    raise SystemExit(main())
