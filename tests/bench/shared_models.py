"""The small trained models of ../shared/models, exported, and Alpaca rows to calibrate them on.

Bundles are kept under ``.cache`` at the repository's root, which git ignores.
"""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from layerguard.calibration.rows.leakage import prompt_group
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.text.request import request
from tests.bench.harness import REPOSITORY
from tests.bench.minilm import CACHE, run_command

SHARED = REPOSITORY.parent / "shared"
DATA = SHARED / "data"
BASE = SHARED / "models" / "base"
ADAPTERS = SHARED / "models" / "adapters"


def need_shared() -> None:
    """Stop with a sentence where the models and prompts are absent."""
    if not (BASE.is_dir() and DATA.is_dir()):
        raise SystemExit(f"{SHARED} is absent or incomplete: it holds the models and prompts")


def exported(adapter: Path, *options: str) -> Path:
    """The base with an adapter merged in; ``options`` as ``layerguard export`` takes them."""
    CACHE.mkdir(exist_ok=True)
    bundle = CACHE / "-".join(["shared", adapter.name, *(o.strip("-") for o in options)])
    if not (bundle / "manifest.json").is_file():
        run_command("export", str(BASE), "--adapter", str(adapter), "-o", str(bundle), *options)
    return bundle


def alpaca(count: int, seed: int = 0, without: Sequence[Row] = ()) -> list[Row]:
    """Different Alpaca prompts with their answers, in random order, none of them in ``without``."""
    with gzip.open(DATA / "alpaca_52k.jsonl.gz", "rt", encoding="utf-8") as file:
        found = [json.loads(line) for line in file]
    taken = set(map(prompt_group, without))
    rows: dict[str, Row] = {}
    for i in np.random.default_rng(seed).permutation(len(found)).tolist():
        item = found[i]
        prompt = "\n\n### Input:\n".join(filter(None, (item["instruction"], item["input"])))
        row = Row(str(i), request(prompt=prompt, response=item["output"]))
        if prompt_group(row) not in taken:
            rows.setdefault(prompt_group(row), row)
        if len(rows) == count:
            break
    return list(rows.values())
