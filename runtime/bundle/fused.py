"""What a bundle says of graphs that score and decide by themselves, and what makes them stale."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class FusedProof:
    """What fusing proved against the runtime, over so many texts.

    ``largest`` is, by detector, the largest |graph - runtime| / (1 + |runtime|) of its score.
    """

    tolerance: float
    texts: int
    flips: int
    largest: dict[str, float]


@dataclass(frozen=True, slots=True)
class FusedCard:
    """One graph with the detectors' arithmetic and the decision in it.

    Attributes:
        file: in the bundle.
        opset: of standard operators.
        inputs: those that a caller must feed.
        thresholds: by detector, the input that overrides its threshold; need not be fed.
        outputs: names.
        states: of a text that grows: by input, the output that is fed there next; zeros at first.
        columns: by detector, its column of the input ``rows``; empty where a row is a text.
        made_of: ``fused_from`` of the manifest that it was made in.
        proof: against the runtime.
    """

    file: str
    opset: int
    inputs: tuple[str, ...]
    thresholds: dict[str, str]
    outputs: tuple[str, ...]
    columns: dict[str, int]
    states: dict[str, str]
    made_of: str
    proof: FusedProof


def fused_from(files: Mapping[str, Any], detectors: Mapping[str, Any], decision: Any) -> str:
    """What a fused graph depends on, as sha256 in hex: graphs, parameters, cards, decision.

    Args:
        files: cards by name; those of the exported graphs, weights and parameters count.
        detectors: cards by name.
        decision: its card, or None.
    """
    sources = sorted(name for name in files if name in _SOURCES)
    value = {
        "files": {name: files[name].sha256 for name in sources},
        "detectors": {name: asdict(card) for name, card in detectors.items()},
        "decision": asdict(decision) if decision else None,
    }
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


_SOURCES = ("score.onnx", "decode.onnx", "weights.data", "detectors.npz", "tokenizer.json",
            "chat_template.jinja")  # fmt: skip


def fused_contradictions(
    cards: Mapping[str, FusedCard], made_of: str, detectors: Mapping[str, Any]
) -> list[str]:
    """Fused graphs of other parameters, of other detectors, or with flips."""
    faults = []
    for name, card in cards.items():
        where = f"manifest.json: fused.{name}"
        if card.made_of != made_of:
            faults.append(
                f"{where}: {card.file} was made of other parameters than the bundle holds; remove "
                "it with its card, or run `layerguard fuse` again"
            )
        if sorted(card.thresholds) != sorted(detectors):
            faults.append(
                f"{where}.thresholds are of {sorted(card.thresholds)}; expected "
                f"{sorted(detectors)}, those that the manifest describes"
            )
        if card.proof.flips:
            faults.append(f"{where}.proof has {card.proof.flips} flips; expected none")
    return faults
