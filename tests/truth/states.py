"""What the detectors read of the truth tables' texts, computed once for each model.

It is kept under ``.cache``, where a text costs 0.2 MB for a model of 30 blocks with an adapter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import time

import numpy as np

from layerguard.calibration.weights.tuning import between
from layerguard.calibration.weightwatch.directions import directions, watching
from layerguard.runtime.bundle import Bundle
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
    """

    states: Array
    extremes: Array

    @classmethod
    def joined(cls, parts: Sequence["Texts"]) -> "Texts":
        """The texts of several sources."""
        return cls(
            np.concatenate([part.states for part in parts]),
            np.concatenate([part.extremes for part in parts]),
        )


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

    def texts(self) -> dict[str, Texts]:
        """The states of every source, by its name; ``triggered`` and ``clean`` with an adapter."""
        rows = {"own": sources.background(), "short": sources.short()}
        rows |= {source: sources.benign(source) for source in sources.SOURCES}
        if self.adapter:
            rows |= {"triggered": sources.triggered(self.adapter.name), "clean": sources.clean()}
        return {source: self._read(source, some) for source, some in rows.items()}

    def _read(self, source: str, rows: Sequence[Row]) -> Texts:
        """The states of one source, from the cache if it has these texts."""
        path = CACHE / "truth" / self.name / f"{source}.npz"
        prompts = np.array([row.request.prompt for row in rows])
        if path.is_file():
            with np.load(path) as kept:
                if np.array_equal(kept["prompts"][: len(rows)], prompts):
                    return Texts(kept["states"][: len(rows)], kept["extremes"][: len(rows)])
        start = time()
        parts = [self._computed(rows[i : i + _AT_ONCE]) for i in range(0, len(rows), _AT_ONCE)]
        texts = Texts.joined(parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, prompts=prompts, states=texts.states, extremes=texts.extremes)
        print(f"{self.name}: {len(rows)} texts of {source}, {time() - start:.0f} s", flush=True)
        return texts

    def _computed(self, rows: Sequence[Row]) -> Texts:
        last = REGISTRY["lcf"].tap
        taps = {last}
        if self.directions:
            watched = watching(self.directions)
            taps.add(watched)
        pooled = self._backbone.read([row.request for row in rows], taps)
        states = np.stack(_first_windows(pooled.of(last)), axis=1)
        if not self.directions:
            return Texts(states, np.empty((len(rows), 4, 2, 0), np.float32))
        return Texts(states, _first_windows(pooled.of(watched))[0])

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
