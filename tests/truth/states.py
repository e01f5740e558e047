"""What the detectors read of the truth tables' texts, computed once for each model.

It is kept under ``.cache``, where a text costs 0.2 MB for a model of 30 blocks with an adapter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from time import time

import numpy as np

from layerguard.calibration.weights.tuning import between
from layerguard.calibration.weightwatch.directions import directions, watching
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.bundle.manifest import ADDED_KINDS, added_outputs
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.model.backbone import Backbone
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.types import Array
from tests.bench import minilm
from tests.bench.minilm import CACHE, run_command
from tests.bench.shared_models import ADAPTERS, BASE, exported
from tests.bench.smollm2 import model_file
from tests.truth import sources
from tests.truth.rows import TRIGGERS

_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Texts:
    """What the detectors read of some texts.

    Attributes:
        states: float32 [n, L + 1, hidden], the last token of the prompt in its template.
        extremes: float32 [n, 4, 2, K]; K is 0 for a model without an adapter.
        added: float32 [n, M], what each of M changed matrices adds; M is 0 without an adapter.
    """

    states: Array
    extremes: Array
    added: Array

    @classmethod
    def joined(cls, parts: Sequence["Texts"]) -> "Texts":
        """The texts of several sources."""
        return cls(
            np.concatenate([part.states for part in parts]),
            np.concatenate([part.extremes for part in parts]),
            np.concatenate([part.added for part in parts]),
        )

    def chosen(self, numbers: Sequence[int]) -> "Texts":
        """These texts."""
        return Texts(*(array[list(numbers)] for array in (self.states, self.extremes, self.added)))


@dataclass(frozen=True)
class Model:
    """all-MiniLM-L6-v2, or a model with an adapter that has a planted trigger.

    Attributes:
        name: ``minilm``; the name of an adapter of SmolLM2; or ``small/NAME``, of an adapter of the
            model of 3.9 million parameters.
    """

    name: str

    @property
    def adapter(self) -> Path | None:
        """The adapter's folder."""
        if self._small:
            return ADAPTERS / self.name.removeprefix("small/")
        return TRIGGERS.get(self.name)

    @property
    def _small(self) -> bool:
        return self.name.startswith("small/")

    @cached_property
    def directions(self) -> Mapping[str, Array]:
        """The directions that WeightWatch watches; empty without an adapter."""
        if self.adapter is None:
            return {}
        depth = self._bundle.manifest.model.total_layers
        base = BASE if self._small else model_file()
        return directions(between(base, self.adapter), depth)

    @property
    def changed(self) -> tuple[Array, Array]:
        """Block int32 [M] and part uint8 [M] of the matrices that tuning changed."""
        cards = added_outputs(self._bundle.manifest.graphs["score"])
        parts = [ADDED_KINDS.index(card.kind) for card in cards]
        return np.array([card.layer for card in cards], np.int32), np.array(parts, np.uint8)

    def texts(self) -> dict[str, Texts]:
        """The states of every source, by its name; ``triggered`` and ``clean`` with an adapter."""
        rows = {"own": sources.background(), "short": sources.short()}
        rows |= {source: sources.benign(source) for source in sources.SOURCES}
        if self.adapter:
            rows |= {"triggered": sources.triggered(self.adapter.name), "clean": sources.clean()}
        return {source: self._read(source, some) for source, some in rows.items()}

    def _read(self, source: str, rows: Sequence[Row]) -> Texts:
        """The states of one source; those of texts that the cache has are not computed again."""
        path = CACHE / "truth" / self.name / f"{source}.npz"
        prompts = [row.request.prompt for row in rows]
        kept, parts = _kept(path)
        distinct = {row.request.prompt: row for row in rows}
        missing = [row for prompt, row in distinct.items() if prompt not in kept]
        start = time()
        for i in range(0, len(missing), _AT_ONCE):
            some = missing[i : i + _AT_ONCE]
            kept |= {row.request.prompt: len(kept) + k for k, row in enumerate(some)}
            parts.append(self._computed(some))
        texts = Texts.joined(parts)
        if missing:
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, prompts=np.array(list(kept)), **asdict(texts))
            took = f"{time() - start:.0f} s"
            print(f"{self.name}: {len(missing)} texts of {source}, {took}", flush=True)
        return texts.chosen([kept[prompt] for prompt in prompts])

    def _computed(self, rows: Sequence[Row]) -> Texts:
        last = REGISTRY["lcf"].tap
        taps = {last}
        if self.directions:
            watched, added = watching(self.directions), REGISTRY["delta"].tap
            taps |= {watched, added}
        pooled = self._backbone.read([row.request for row in rows], taps)
        states = np.stack(_first_windows(pooled.of(last)), axis=1)
        if not self.directions:
            none = np.empty((len(rows), 4, 2, 0), np.float32)
            return Texts(states, none, none[:, 0, 0])
        (extremes,), (lengths,) = (_first_windows(pooled.of(tap)) for tap in (watched, added))
        return Texts(states, extremes, lengths)

    @cached_property
    def _backbone(self) -> Backbone:
        return Backbone(self._bundle, threads=1)

    @cached_property
    def _bundle(self) -> Bundle:
        if self.adapter is None:
            return Bundle.load(minilm.exported())
        if self._small:
            return Bundle.load(exported(self.adapter, "--decode", "no"))
        folder = CACHE / f"truth-{self.name}"
        if not (folder / "manifest.json").is_file():
            tuned = ("--adapter", str(self.adapter), "--decode", "no")
            run_command("export", str(model_file()), *tuned, "-o", str(folder))
        return Bundle.load(folder)


def _first_windows(read: tuple[Sequence[Array], Array]) -> list[Array]:
    """The first window of each text, by layer."""
    layers, owner = read
    first = np.unique(owner, return_index=True)[1]
    return [layer[first] for layer in layers]


def _kept(path: Path) -> tuple[dict[str, int], list[Texts]]:
    """The numbers of the prompts in a file of the cache, and what the detectors read of them."""
    if not path.is_file():
        return {}, []
    with np.load(path) as kept:
        prompts = {str(prompt): number for number, prompt in enumerate(kept["prompts"])}
        return prompts, [Texts(*(kept[field.name] for field in fields(Texts)))]
