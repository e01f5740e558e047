"""What harmless earlier turns of a chat do to SIREN, and what a window of the newest turns gives.

    python -m tests.truth.turns

SIREN on MiniLM is trained as in ``dilution.py``. Other harmful texts of the harm sources are the
newest turn of a chat, after a number of exchanges: texts of Dolly, as turns of the user and of the
assistant in turn. The harmless chats have one more text of Dolly instead. The threshold is that of
single texts of Dolly, for a target of 5 %: thresholds are mostly set on single prompts. Version 2
of the text rules reads all turns as one text; version 3 also reads the newest turns on their own.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from layerguard.calibration.states.collect import collect
from layerguard.calibration.thresholds import conformal
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.model.backbone import Backbone
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.text.request import request
from layerguard.runtime.types import Array
from tests.bench import minilm
from tests.truth.dilution import TARGET, harmful_texts, scores_of, trained
from tests.truth.operating_point import Scored
from tests.truth.public_sources import source_rows
from tests.truth.tables import keep

EXCHANGES = (0, 1, 4)
"""Numbers of earlier turns of the user, each with its answer."""

VERSIONS = (2, 3)
CLEAN, CALIBRATION, SEED = 120, 240, 0


def main() -> None:
    """Print and keep the table."""
    bundle = Bundle.load(minilm.exported())
    params = trained(Backbone(bundle, threads=1))
    known = {row.id for row in source_rows("Dolly", 20)}
    texts = [row.request.content() for row in source_rows("Dolly", 900) if row.id not in known]
    rng = np.random.default_rng(SEED)
    clean, calibration = texts[:CLEAN], texts[CLEAN : CLEAN + CALIBRATION]
    earlier = texts[CLEAN + CALIBRATION :]
    chats = {
        (kind, number): [_chat(text, number, earlier, rng) for text in newest]
        for number in EXCHANGES
        for kind, newest in (("harmful", harmful_texts()), ("clean", clean))
    }
    alone = [_chat(text, 0, earlier, rng) for text in calibration]
    lines = [line for version in VERSIONS for line in _lines(bundle, params, version, chats, alone)]
    question = f"SIREN on a harmful newest turn of a chat, target {TARGET:.0%}; MiniLM"
    keep("turns_minilm", question, lines)


def _chat(newest: str, exchanges: int, texts: Sequence[str], rng: np.random.Generator) -> Row:
    """A chat whose earlier turns are harmless."""
    said = rng.choice(np.array(texts, dtype=object), 2 * exchanges, replace=False)
    turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said)]
    return Row(newest, request(messages=[*turns, {"role": "user", "content": newest}]), None)


def _lines(
    bundle: Bundle,
    params: Mapping[str, Array],
    version: int,
    chats: Mapping[tuple[str, int], Sequence[Row]],
    alone: Sequence[Row],
) -> Iterator[Mapping[str, Any]]:
    """A line for each number of exchanges."""
    rules = replace(bundle.manifest.text, rules_version=version)
    ruled = replace(bundle, manifest=replace(bundle.manifest, text=rules))
    backbone, tap = Backbone(ruled, threads=1), REGISTRY["siren"].tap
    siren = REGISTRY["siren"].bind(params, tap)

    def scores(rows: Sequence[Row], what: str) -> Array:
        recorded = collect(backbone, rows, tap, f"rules {version}: {what}")
        return scores_of(siren, recorded, recorded.owner)

    threshold = conformal.threshold(scores(alone, "calibration"), TARGET)
    for number in EXCHANGES:
        bad = scores(chats["harmful", number], f"harmful, {number} exchanges")
        good = scores(chats["clean", number], f"harmless, {number} exchanges")
        yield {
            "text rules": version,
            "earlier exchanges": number,
            "threshold": threshold,
            "median score": float(np.median(bad)),
            "harmful flagged %": 100 * float((bad > threshold).mean()),
            "harmless flagged %": 100 * float((good > threshold).mean()),
            "AUROC": Scored(good, bad, good, ()).auroc(),
        }


if __name__ == "__main__":
    main()
