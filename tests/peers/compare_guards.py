"""LayerGuard's SIREN on MiniLM beside other guards, on the same rows.

    python -m tests.peers.compare_guards

Six sources of injections and of harm, and five of benign text. NanoGuard and armorer-guard come
trained; what they were trained on is not published, and may hold some of these rows. SIREN and the
TF-IDF baseline are trained three times, at a target of 1 %, each time without the sources that they
are then asked about. Every guard runs in a process of its own on one thread, and reads one text at
a time.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.types import Array
from tests.bench.harness import report
from tests.bench.minilm import CACHE, exported, run_command
from tests.peers.guard_jobs import PEERS, NoGuardError, ask_layerguard, ask_peer, ask_words
from tests.truth.operating_point import recall_at_rate
from tests.truth.public_sources import BENIGN, source_rows, without_overlap

RESULTS = Path(__file__).resolve().parent / "results"
TURNS = (
    ("BIPIA", "ToxicChat", "Alpaca", "Dolly"),
    ("deepset", "OpenAI moderation", "questions", "NotInject"),
    ("InjecAgent", "WildGuard", "gsm8k"),
)
"""The sources that are left out together."""

SOURCES = tuple(source for turn in TURNS for source in turn)
ATTACKS = tuple(source for source in SOURCES if source not in BENIGN)
TESTED, TESTED_BENIGN, TRAINED = 150, 100, 200
"""Most rows of a source with attacks, of a benign source, and of each source in training."""

TARGET = 0.01
TRAINABLE = ("LayerGuard, SIREN on MiniLM", "TF-IDF")

Answers = dict[str, dict[str, Any]]
"""By source: the answer of a guard, cut to the rows of that source."""


def main() -> None:
    """Print two tables: attacks, and benign text with costs."""
    sizes = {source: TESTED_BENIGN if source in BENIGN else TESTED for source in SOURCES}
    rows = {source: source_rows(source, size) for source, size in sizes.items()}
    answers: dict[str, Answers] = {}
    absent: list[Mapping[str, object]] = []
    for name, peer in PEERS.items():
        try:
            answers[name] = _by_source(ask_peer(peer, _texts(rows)), rows)
        except NoGuardError as error:
            absent.append({"guard": name, "not run, because": str(error)})
    answers |= _trained(rows)
    lines = [
        {"guard": guard, "source": source, **_attack_figures(answers[guard][source], rows[source])}
        for source in ATTACKS
        for guard in answers
    ]
    costs = [*map(_costs, answers.items()), *absent]
    question = (
        f"Recall at realised rates, per cent; {TESTED} rows a source, a third of them attacks"
    )
    report("guards_attacks", question, lines, RESULTS)
    question = (
        f"Flagged at a guard's own threshold, per cent of {TESTED_BENIGN} rows; costs of a text"
    )
    report("guards_benign", question, costs, RESULTS)


def _trained(rows: Mapping[str, Sequence[Row]]) -> dict[str, Answers]:
    """What guards answer that were trained without the source that they are asked about."""
    found: dict[str, Answers] = {name: {} for name in TRAINABLE}
    for left_out in TURNS:
        tested = {source: rows[source] for source in left_out}
        others = [source for source in SOURCES if source not in left_out]
        candidates = [row for source in others for row in source_rows(source, TRAINED)]
        training = without_overlap(candidates, [row for part in tested.values() for row in part])
        siren = ask_layerguard(_texts(tested), _bundle(left_out[0], training))
        labels = [int(row.label or 0) for row in training]
        words = ask_words(_texts(tested), _texts({"": training}), labels, TARGET)
        for name, answer in zip(TRAINABLE, (siren, words), strict=True):
            found[name] |= _by_source(answer, tested)
    return found


def _bundle(name: str, training: Sequence[Row]) -> Path:
    """MiniLM with SIREN alone, trained on these rows."""
    bundle = CACHE / "guards" / name
    shutil.rmtree(bundle, ignore_errors=True)
    shutil.copytree(exported(), bundle)
    file = bundle.with_suffix(".jsonl")
    lines = [
        {"id": row.id, "label": row.label, "source": row.domain, "text": row.request.content()}
        for row in training
    ]
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    run_command(
        "calibrate", str(bundle), "--labelled", str(file), "--target-fpr", str(TARGET),
        "--threads", "1",
    )  # fmt: skip
    return bundle


def _texts(rows: Mapping[str, Sequence[Row]]) -> list[str]:
    return [row.request.content() for part in rows.values() for row in part]


def _by_source(answer: dict[str, Any], rows: Mapping[str, Sequence[Row]]) -> Answers:
    """The answer of each source's rows, which were asked one source after the other."""
    found, start = {}, 0
    for source, part in rows.items():
        chosen = slice(start, start + len(part))
        lists = {key: np.array(answer[key][chosen]) for key in ("scores", "flagged")}
        found[source] = {**answer, **lists}
        start += len(part)
    return found


def _attack_figures(answer: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, float]:
    labels: Array = np.array([row.label for row in rows])
    scores, flagged = answer["scores"], answer["flagged"]
    clean, attacks = (scores[labels == label] for label in (0, 1))
    return {
        "AUROC": float(roc_auc_score(labels, scores)),
        "recall at 1%": 100 * recall_at_rate(clean, attacks, 0.01),
        "recall at 5%": 100 * recall_at_rate(clean, attacks, 0.05),
        "own threshold: clean": 100 * float(flagged[labels == 0].mean()),
        "own threshold: attacks": 100 * float(flagged[labels == 1].mean()),
    }


def _costs(item: tuple[str, Answers]) -> Mapping[str, object]:
    """False alarms on benign sources at the guard's own threshold, and what it costs."""
    guard, answers = item
    costs = {
        key: float(np.mean([answer[key] for answer in answers.values()]))
        for key in ("ms", "resident_mb", "disk_mb")
    }
    flagged = {source: 100 * float(answers[source]["flagged"].mean()) for source in BENIGN}
    return {"guard": guard, **flagged, **costs}


if __name__ == "__main__":
    main()
