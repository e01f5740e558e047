"""Fuses a bundle: builds its graphs, proves them and writes them into the bundle atomically."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from onnx import ModelProto

from layerguard.exporter.fused.graph import Design, build
from layerguard.exporter.fused.proof import prove, prove_growing
from layerguard.exporter.fused.texts import TEXTS
from layerguard.runtime.bundle import Bundle, Manifest
from layerguard.runtime.bundle.files import FUSED
from layerguard.runtime.bundle.fused import FusedCard, FusedProof, fused_from
from layerguard.runtime.bundle.write import carry_over, replacing, seal
from layerguard.runtime.errors import InputError
from layerguard.runtime.guard import Guard
from layerguard.runtime.model.session import Device
from layerguard.runtime.text.request import Request, request

_FILES = {"score": FUSED, "decode": "fused_decode.onnx"}
_PROOFS = {"score": prove, "decode": prove_growing}


@dataclass(frozen=True, slots=True)
class Fused:
    """The result of fusing: the manifest as written, and the cards of the graphs by name."""

    manifest: Manifest
    cards: Mapping[str, FusedCard]


def fuse(
    path: Path, requests: Sequence[Request] = (), *, device: Device = "cpu", threads: int = 0
) -> Fused:
    """Add the fused graphs to the bundle in folder ``path``; earlier ones are replaced.

    Args:
        path: a calibrated bundle.
        requests: texts for the proof; if empty, ``TEXTS``.
        device: device on which graph and runtime run for the proof.
        threads: ONNX Runtime's threads; 0 lets it choose.

    Raises:
        BundleError: the bundle has faults.
        ExportError: it cannot be fused, or a graph does not give the runtime's scores. The bundle
            is not changed.
        InputError: another process is writing the bundle, or has changed it meanwhile.
    """
    guard = Guard.load(path, device=device, threads=threads)
    bundle = guard.bundle
    design = Design.of(bundle)
    models = {name: build(design, name) for name in design.graphs}
    texts = list(requests) or [request(text) for text in TEXTS]
    with replacing(path) as folder:
        if Bundle.load(path).id != bundle.id:
            raise InputError(
                f"{path} changed while it was fused (expected id {bundle.id}); nothing was "
                "written, fuse it again"
            )
        fused = {card.file for card in bundle.manifest.fused.values()}
        carry_over(path, folder, [name for name in bundle.manifest.files if name not in fused])
        cards = {}
        for name, (model, states) in models.items():
            graph = folder / _FILES[name]
            graph.write_bytes(model.SerializeToString(deterministic=True))
            proof = _PROOFS[name](graph, design, guard, texts)
            cards[name] = _card(name, design, model, states, proof)
        manifest = seal(folder, replace(bundle.manifest, fused=cards))
    return Fused(manifest, cards)


def _card(
    name: str, design: Design, model: ModelProto, states: dict[str, str], proof: FusedProof
) -> FusedCard:
    manifest = design.bundle.manifest
    initialised = {item.name for item in model.graph.initializer}
    return FusedCard(
        file=_FILES[name],
        opset=manifest.graphs[name].opset,
        inputs=tuple(item.name for item in model.graph.input if item.name not in initialised),
        thresholds={name: f"{name}_threshold" for name in design.detectors},
        outputs=tuple(item.name for item in model.graph.output),
        columns=design.columns,
        states=states,
        made_of=fused_from(manifest.files, manifest.detectors, manifest.decision),
        proof=proof,
    )
