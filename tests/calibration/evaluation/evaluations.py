"""Evaluations without a model: rows with random scores of two detectors and one baseline."""

import numpy as np

from layerguard.calibration.evaluation.evaluate import Evaluation
from layerguard.calibration.evaluation.results import FileResult, MethodMetrics
from layerguard.calibration.evaluation.rule import GuardRule
from layerguard.calibration.evaluation.scored_rows import ScoredRow
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.text.request import request
from layerguard.runtime.types import Evidence, Reading

TARGET = 0.05
THRESHOLDS = {"lcf": 1.5, "siren": 0.6}


def make_row(
    name: str,
    label: int,
    scores: tuple[float, float],
    *,
    source: str | None = None,
    text: str = "a text",
    tokens: int = 12,
    p_value: float | None = None,
) -> ScoredRow:
    """One row; the guard flags it if one of the detectors does."""
    readings = {
        detector: Reading(
            detector=detector,
            score=score,
            threshold=threshold,
            p_value=0.01 if score > threshold else 0.5,
            flagged=not score <= threshold,
            evidence=(Evidence(3, "z", 2.5), Evidence(1, "z", -1.0)),
            status="ok" if np.isfinite(score) else "invalid",
        )
        for (detector, threshold), score in zip(THRESHOLDS.items(), scores, strict=True)
    }
    return ScoredRow(
        file="rows",
        row=Row(name, request(text), label, source, place=f"rows:{name}"),
        tokens=tokens,
        truncated=False,
        flagged=any(reading.flagged for reading in readings.values()),
        p_value=p_value,
        readings=readings,
        baselines={"tf-idf + logistic": scores[1] / 2},
    )


def make_rows(n: int, seed: int) -> list[ScoredRow]:
    """``n`` rows of three sources, every third harmful, with p-values that order as the scores."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        label = int(i % 3 == 0)
        score = float(rng.normal() + label)
        rows.append(
            make_row(
                f"row-{i}",
                label,
                (score, float(rng.random())),
                source=("chat", "code", None)[i % 4 % 3],
                text=f"text number {i}",
                tokens=int(rng.integers(1, 600)),
                p_value=float(np.clip(1 / (1 + np.exp(score)), 1e-3, 1)),
            )
        )
    return rows


def make_evaluation(rows: list[ScoredRow], *, target: float | None = TARGET) -> Evaluation:
    """The evaluation of these rows, as one file."""
    harmful = sum(row.label for row in rows)
    return Evaluation(
        bundle_id="0123456789abcdef",
        guard=GuardRule(
            model="tiny",
            policy="any",
            deciding=("lcf", "siren"),
            shadow=(),
            thresholds=THRESHOLDS,
            target_fpr=target,
            fpr_interval=None if target is None else (0.03, 0.08),
            calibration_rows=0 if target is None else 400,
        ),
        files=(FileResult("rows", len(rows), harmful, (MethodMetrics("lcf", auroc=0.5),)),),
        domains=(),
        rows=tuple(rows),
        faults=(),
    )
