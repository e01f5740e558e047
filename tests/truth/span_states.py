"""Every token's states at some layers, kept on disk: the injection table reads them many times."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from layerguard.runtime.bundle import Bundle
from layerguard.runtime.model.backbone import Backbone
from layerguard.runtime.types import Array
from tests.bench.minilm import CACHE
from tests.truth.span_rows import Text

MOST_TOKENS = 512
"""As many as all-MiniLM-L6-v2 reads; no text of the table is longer."""


@dataclass(frozen=True, slots=True)
class Read:
    """A text that the model has read.

    Attributes:
        text: the text.
        states: float16 [layers, tokens, hidden], without the special tokens around the text.
        offsets: int [tokens, 2], characters of each token.
    """

    text: Text
    states: Array
    offsets: Array

    @property
    def inside(self) -> Array:
        """Bool [tokens]: which tokens lie in the injection."""
        if self.text.span is None:
            return np.zeros(len(self.offsets), dtype=bool)
        start, end = self.text.span
        inside: Array = (self.offsets[:, 0] < end) & (self.offsets[:, 1] > start)
        return inside


def read(
    bundle: Callable[[], Path], name: str, texts: Sequence[Text], layers: Sequence[int]
) -> list[Read]:
    """The states of the texts by a bundle; kept as ``name``, and computed again for other texts."""
    path = CACHE / "spans" / f"{name}-{'-'.join(map(str, layers))}.npz"
    key = hashlib.sha256(json.dumps([text.text for text in texts]).encode()).hexdigest()
    if not path.is_file() or _key(path) != key:
        path.parent.mkdir(parents=True, exist_ok=True)
        found = list(_run(bundle(), texts, layers))
        lengths = [len(offsets) for _, offsets in found]
        states = np.concatenate([states for states, _ in found], axis=1)
        offsets = np.concatenate([offsets for _, offsets in found])
        np.savez(path, states=states, offsets=offsets, lengths=np.array(lengths), key=key)
    with np.load(path) as kept:
        cuts = np.cumsum(kept["lengths"])[:-1]
        parts = zip(
            np.split(kept["states"], cuts, axis=1), np.split(kept["offsets"], cuts), strict=True
        )
        return [Read(text, *part) for text, part in zip(texts, parts, strict=True)]


def _key(path: Path) -> str:
    """The hash of the texts whose states the file keeps; empty if it keeps none."""
    with np.load(path) as kept:
        return str(kept["key"]) if "key" in kept else ""


def _run(
    folder: Path, texts: Sequence[Text], layers: Sequence[int]
) -> Iterable[tuple[Array, Array]]:
    bundle = Bundle.load(folder)
    backbone = Backbone(bundle, threads=1)
    names = {card.layer: card.name for card in bundle.manifest.graphs["score"].outputs
             if card.kind == "state"}  # fmt: skip
    before, after = map(len, backbone.reader.frame)
    for text in texts:
        encoding = backbone.reader.tokenizer.encode(text.text, add_special_tokens=False)
        ids = [*backbone.reader.frame[0], *encoding.ids[:MOST_TOKENS], *backbone.reader.frame[1]]
        feeds = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), np.int64)}
        states = backbone.session.run([names[layer] for layer in layers], feeds)
        own = np.stack([layer[0, before : len(ids) - after] for layer in states])
        yield own.astype(np.float16), np.array(encoding.offsets[:MOST_TOKENS]).reshape(-1, 2)
