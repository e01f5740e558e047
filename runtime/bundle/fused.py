"""The manifest's cards of fused graphs, and the check that a fused graph is up to date.

A fused graph contains the detectors and the decision as ONNX operators.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class FusedProof:
    """Result of the comparison of a fused graph with the runtime.

    Attributes:
        tolerance: tolerance on ``largest``.
        texts: number of texts compared.
        flips: number of texts with different decisions.
        largest: for each detector, the largest |graph - runtime| / (1 + |runtime|) of its score.
    """

    tolerance: float
    texts: int
    flips: int
    largest: dict[str, float]


@dataclass(frozen=True, slots=True)
class FusedCard:
    """One graph that contains the detectors' arithmetic and the decision.

    Attributes:
        file: name of the file in the bundle.
        opset: version of the standard ONNX operators.
        inputs: names of the required inputs.
        thresholds: for each detector, the optional input that overrides its threshold.
        outputs: names of the outputs.
        columns: for each detector, its column of the input ``rows``; empty if each row is a text.
        states: for streaming graphs, maps each state input to the output that feeds it in the next
            step. The first step feeds zeros.
        made_of: value of ``fused_from`` when the graph was made.
        proof: the comparison with the runtime.
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
    """The sha256, in hex, of everything that a fused graph depends on.

    Args:
        files: cards of the bundle's files, by name. Only exported graphs, weights, parameters,
            tokenizer and chat template are used.
        detectors: cards of the detectors, by name.
        decision: card of the decision, or None.
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
    """Faults of fused graphs that are outdated, have other detectors, or have flips."""
    faults = []
    for name, card in cards.items():
        where = f"manifest.json: fused.{name}"
        if card.made_of != made_of:
            faults.append(
                f"{where}: {card.file} was made from other parameters than the bundle has; remove "
                "it together with its card, or run `layerguard fuse` again"
            )
        if sorted(card.thresholds) != sorted(detectors):
            faults.append(
                f"{where}.thresholds are for {sorted(card.thresholds)}; expected "
                f"{sorted(detectors)}, the detectors of the manifest"
            )
        if card.proof.flips:
            faults.append(f"{where}.proof has {card.proof.flips} flips; expected none")
    return faults
