"""Sources of traffic for the truth tables, and the pooled states of their prompts.

States are kept in ``.cache``. A source is a list of prompts of one kind. Alpaca calibrates; the
other sources are reported, apart from ``DESIGN``, on which a rule may be compared with another
before anything is reported.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np

from layerguard.calibration.rows.leakage import normalised
from layerguard.calibration.states.collect import Collector
from layerguard.calibration.states.passes import read_once
from layerguard.calibration.states.recording import Recording
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.model.backbone import Backbone
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.text.request import request
from layerguard.runtime.types import Array, Tap
from tests.bench.minilm import CACHE, PROMPTS, run_command
from tests.bench.minilm import exported as exported_minilm
from tests.bench.smollm2 import model_file
from tests.truth.rows import alpaca_rows, shared_rows

LAST, MEAN = Tap("prompt", "last"), Tap("prompt", "mean")
CALIBRATION_ROWS, ROWS, SEED = 300, 100, 0
MAX_TOKENS = 192
"""Window of SmolLM2: of a longer prompt the first and last tokens are read."""

_GERMAN = re.compile(
    r"\b(der|die|das|und|ist|nicht|ich|wie|für|mit|ein|eine|sie|zu|den|von|auf|werden|wird|was)\b",
    re.IGNORECASE,
)
_ENGLISH = re.compile(r"\b(the|and|is|of|to|in|what|how|a|you|for|i|are|my)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SourceStates:
    """Pooled states of a source's prompts, float32 [n, L + 1, hidden], before the final norm.

    Attributes:
        last: of the last token.
        mean: the mean over tokens.
    """

    last: Array
    mean: Array


def exported_smollm2() -> Path:
    """SmolLM2's bundle without detectors."""
    bundle = CACHE / f"smollm2-{MAX_TOKENS}"
    if not (bundle / "manifest.json").is_file():
        CACHE.mkdir(exist_ok=True)
        options = ("--decode", "no", "--max-tokens", str(MAX_TOKENS))
        run_command("export", str(model_file()), "-o", str(bundle), *options)
    return bundle


MODELS: Mapping[str, Callable[[], Path]] = {
    "smollm2": exported_smollm2,
    "minilm": exported_minilm,
}
"""A bundle without detectors, by the name of its model."""


def states(model: str, source: str) -> SourceStates:
    """The states of a source's prompts; computed once for each model."""
    file = CACHE / "traffic" / f"{model}-{source}.npz"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        backbone = Backbone(Bundle.load(MODELS[model]()), threads=1)
        partial = file.with_suffix(".partial.npz")
        np.savez(partial, **_read(backbone, source))
        partial.rename(file)
    with np.load(file) as held:
        return SourceStates(held["last"], held["mean"])


def _read(backbone: Backbone, source: str) -> dict[str, Array]:
    rows = [Row(text, request(text), place=source) for text in prompts(source)]
    with Recording(len(rows)) as last, Recording(len(rows)) as mean:
        faults = read_once(backbone, rows, [Collector(LAST, last), Collector(MEAN, mean)], source)
        assert not faults, faults
        held = {"last": last, "mean": mean}
        return {
            name: np.concatenate([block.swapaxes(0, 1) for _, block in recording.blocks()])
            for name, recording in held.items()
        }


def prompts(source: str) -> list[str]:
    """Different prompts of a source in random order: ``ROWS``, or ``CALIBRATION_ROWS``."""
    if source == "alpaca (calibration)":
        return list(islice(_alpaca(), CALIBRATION_ROWS))
    if source == "alpaca (other)":
        return list(islice(_alpaca(), CALIBRATION_ROWS, CALIBRATION_ROWS + ROWS))
    texts = {**REPORTED, **DESIGN}[source]()
    unique = list({normalised(text): text for text in texts}.values())
    Random(SEED).shuffle(unique)
    return unique[:ROWS]


def _alpaca() -> Iterator[str]:
    seen = set()
    for row in alpaca_rows(SEED):
        text = "\n\n".join(filter(None, (row["instruction"], row["input"])))
        if normalised(text) not in seen:
            seen.add(normalised(text))
            yield text


def _of(name: str, label: int = 0, *categories: str) -> Callable[[], list[str]]:
    """The texts of a file of ../shared with a label, and with one of the categories if given."""
    return lambda: [
        row["text"]
        for row in shared_rows(name)
        if row["label"] == label and (not categories or row["category"] in categories)
    ]


def _deepset(label: int, *, german: bool) -> Callable[[], list[str]]:
    def texts() -> list[str]:
        found = _of("deepset_prompt_injections", label)()
        return [text for text in found if _is_german(text) == german]

    return texts


def _is_german(text: str) -> bool:
    return len(_GERMAN.findall(text)) > len(_ENGLISH.findall(text))


def _own() -> list[str]:
    lines = (PROMPTS / "clean.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


REPORTED: Mapping[str, Callable[[], list[str]]] = {
    "dolly": _of("benign_dolly_1k"),
    "gsm8k": _of("benign_gsm8k"),
    "deepset benign, English": _deepset(0, german=False),
    "deepset benign, German": _deepset(0, german=True),
    "notinject": _of("notinject"),
    "bench questions": _of("benign_bench_questions"),
    "attacks: GCG, DAN, PAIR": _of("lcf_jailbreaks_gcg_dan_pair", 1, "gcg", "dan", "pair"),
    "attacks: deepset": _of("deepset_prompt_injections", 1),
    "attacks: advbench": _of("advbench_behaviors", 1),
}
"""Sources that tables report; no setting may be chosen on them."""

DESIGN: Mapping[str, Callable[[], list[str]]] = {
    "xstest": _of("xstest"),
    "toxicchat benign": _of("siren_toxicchat_train"),
    "agentdojo": _of("agentdojo_tasks"),
    "own prompts": _own,
}
"""Sources on which rules may be compared; they are not reported."""
