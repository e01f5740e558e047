"""Fuse a bundle: build the graph, prove it, write it into the bundle in one step."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from layerguard.exporter.fused.graph import Design, build
from layerguard.exporter.fused.proof import prove
from layerguard.exporter.fused.texts import TEXTS
from layerguard.runtime.bundle import Bundle, Manifest
from layerguard.runtime.bundle.files import FUSED
from layerguard.runtime.bundle.fused import FusedCard, FusedProof, fused_from
from layerguard.runtime.bundle.write import carry_over, replacing, seal
from layerguard.runtime.errors import InputError
from layerguard.runtime.guard import Guard
from layerguard.runtime.session import Device
from layerguard.runtime.text.request import Request, request


@dataclass(frozen=True, slots=True)
class Fused:
    """What fusing made: the manifest as written, and the graph's card in it."""

    manifest: Manifest
    card: FusedCard


def fuse(
    path: Path, requests: Sequence[Request] = (), *, device: Device = "cpu", threads: int = 0
) -> Fused:
    """Add the fused graph to the bundle in folder ``path``; an earlier one is replaced.

    Args:
        path: a calibrated bundle.
        requests: texts to prove the graph on; none: ``TEXTS``.
        device: where both run for the proof.
        threads: of ONNX Runtime; 0 lets it choose.

    Raises:
        BundleError: the bundle has faults.
        ExportError: it cannot be fused, or the graph does not give the runtime's scores. The
            bundle is then as it was.
        InputError: another process is writing the bundle, or has written it meanwhile.
    """
    guard = Guard.load(path, device=device, threads=threads)
    bundle = guard.bundle
    design = Design.of(bundle)
    model = build(design)
    texts = list(requests) or [request(text) for text in TEXTS]
    with replacing(path) as folder:
        if Bundle.load(path).id != bundle.id:
            raise InputError(
                f"{path} changed while it was fused (it was {bundle.id}); nothing was written, "
                "fuse it again"
            )
        fused = {card.file for card in bundle.manifest.fused.values()}
        carry_over(path, folder, [name for name in bundle.manifest.files if name not in fused])
        graph = folder / FUSED
        graph.write_bytes(model.SerializeToString(deterministic=True))
        proof = prove(graph, design, guard, texts)
        card = _card(design, model, proof)
        manifest = seal(folder, replace(bundle.manifest, fused={"score": card}))
    return Fused(manifest, card)


def _card(design: Design, model: onnx.ModelProto, proof: FusedProof) -> FusedCard:
    manifest = design.bundle.manifest
    given = {item.name for item in model.graph.initializer}
    return FusedCard(
        file=FUSED,
        opset=manifest.graphs["score"].opset,
        inputs=tuple(item.name for item in model.graph.input if item.name not in given),
        thresholds={name: f"{name}_threshold" for name in design.detectors},
        outputs=tuple(item.name for item in model.graph.output),
        columns=design.columns,
        made_of=fused_from(manifest.files, manifest.detectors, manifest.decision),
        proof=proof,
    )
