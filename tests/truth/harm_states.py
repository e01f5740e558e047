"""Mean states of rows, as SIREN reads them, recorded once and kept under ``.cache``."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from layerguard.calibration.states.collect import collect
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.model.backbone import Backbone
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.types import Array
from tests.bench import minilm, smollm2
from tests.bench.minilm import CACHE, run_command
from tests.truth.public_sources import HARM, source_rows

Model = Literal["MiniLM", "SmolLM2"]


@dataclass(frozen=True, slots=True)
class Size:
    """Most rows of a harm source and of a benign one."""

    harm: int
    benign: int

    def of(self, source: str) -> int:
        """Most rows of a source."""
        return self.harm if source in HARM else self.benign


SIZES: Mapping[Model, Size] = {"MiniLM": Size(300, 100), "SmolLM2": Size(150, 50)}
"""The rows that are recorded; a forward pass of SmolLM2 costs twenty of MiniLM's."""

TOKENS = 192
"""Most tokens that SmolLM2 reads of a text, half of them from its end."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """Rows of one source, and their states, float32 [n, L + 1, hidden]."""

    rows: tuple[Row, ...]
    states: Array


def recorded(model: Model, source: str, size: Size) -> Recorded:
    """The rows of a source, at most ``size`` of them, and their states."""
    rows = source_rows(source, SIZES[model].of(source))
    path = CACHE / "harm" / f"{model}-{source.replace(' ', '-')}-{len(rows)}.npy"
    if not path.is_file():
        found = collect(_backbone(model), rows, REGISTRY["siren"].tap, f"{model}, {source}")
        if len(found.states) != len(rows):
            raise SystemExit(f"{source}: found {len(found.states)} states, expected {len(rows)}")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, found.states)
    wanted = {row.id for row in source_rows(source, size.of(source))}
    chosen = [i for i, row in enumerate(rows) if row.id in wanted]
    return Recorded(tuple(rows[i] for i in chosen), np.load(path)[chosen])


@cache
def _backbone(model: Model) -> Backbone:
    bundle = minilm.exported() if model == "MiniLM" else _smollm2()
    return Backbone(Bundle.load(bundle), threads=1)


def _smollm2() -> Path:
    bundle = CACHE / f"smollm2-{TOKENS}"
    if not (bundle / "manifest.json").is_file():
        run_command(
            "export", str(smollm2.model_file()), "-o", str(bundle), "--decode", "no",
            "--max-tokens", str(TOKENS), "--id", "SmolLM2-135M-Instruct",
        )  # fmt: skip
    return bundle
