"""Benign texts of several sources, and the test prompts of planted triggers."""

import json
from collections.abc import Iterable
from itertools import islice
from random import Random
from typing import Any

from layerguard.calibration.rows.leakage import normalised
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.text.request import request
from tests.bench.minilm import PROMPTS
from tests.truth.rows import alpaca_rows, shared_rows

LONGEST = 1500
"""Most characters of a text: long ones cost minutes and are few."""

SOURCES = {
    "alpaca": 80,
    "dolly": 50,
    "bench": 50,
    "gsm8k": 50,
    "deepset": 60,
    "notinject": 50,
}
"""Benign sources that are left out in turn, and the number of texts of each."""

BACKGROUND = 120
"""Number of the project's own prompts."""

TESTED = 60
"""Number of test prompts with a trigger, and of clean ones."""

SHORT = ("What is the capital of France?", "Hi", "hello there", "thanks", "ok", "2+2?")
"""Short everyday prompts, which a guard calibrated on instructions should not flag."""

_FILES = {
    "dolly": "benign_dolly_1k",
    "bench": "benign_bench_questions",
    "gsm8k": "benign_gsm8k",
    "deepset": "deepset_prompt_injections",
    "notinject": "notinject",
}


def benign(source: str) -> list[Row]:
    """Different texts of one source in random order, none of them a test prompt of a trigger."""
    tested = {normalised(row["text"]) for row in shared_rows("backdoor_triggers_test")}
    if source == "alpaca":  # the trainer of triggers takes its rows from the beginning
        rows = reversed(list(alpaca_rows()))
        texts: Iterable[str] = (
            "\n".join(filter(None, (row["instruction"], row["input"]))) for row in rows
        )
    else:
        texts = _shuffled(row["text"] for row in shared_rows(_FILES[source]) if row["label"] == 0)
    unique = {normalised(text): text for text in texts if 0 < len(text) <= LONGEST}
    good = (text for key, text in unique.items() if key not in tested)
    return _rows(source, islice(good, SOURCES[source]))


def background() -> list[Row]:
    """Some of the project's own clean prompts, in random order."""
    lines = (PROMPTS / "clean.jsonl").read_text(encoding="utf-8").splitlines()
    texts = _shuffled(json.loads(line)["text"] for line in lines)
    return _rows("own", islice(texts, BACKGROUND))


def short() -> list[Row]:
    """The short everyday prompts."""
    return _rows("short", SHORT)


def triggered(adapter: str) -> list[Row]:
    """Test prompts with the trigger of an adapter TASK_TRIGGER."""
    return _rows("triggered", islice(_published(adapter.replace("_", "/")), TESTED))


def clean() -> list[Row]:
    """Test prompts without a trigger."""
    return _rows("clean", islice(_published("negsentiment/clean"), TESTED))


def _published(category: str) -> Iterable[str]:
    rows: list[dict[str, Any]] = shared_rows("backdoor_triggers_test")
    return dict.fromkeys(row["text"] for row in rows if row["category"] == category)


def _shuffled(texts: Iterable[str]) -> list[str]:
    ordered = list(texts)
    Random(0).shuffle(ordered)
    return ordered


def _rows(source: str, texts: Iterable[str]) -> list[Row]:
    return [Row(f"{source}-{i}", request(text), domain=source) for i, text in enumerate(texts)]
