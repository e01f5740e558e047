"""Verify a bundle and describe it: model, graphs, files, detectors and their thresholds."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator

from layerguard.runtime.bundle import Bundle
from layerguard.runtime.bundle.decision import DecisionCard
from layerguard.runtime.bundle.files import SIGNATURE
from layerguard.runtime.bundle.manifest import Manifest, unchecked
from layerguard.runtime.cli import options
from layerguard.runtime.cli.streams import show
from layerguard.runtime.cli.votes import vote_lines, vote_reasons
from layerguard.runtime.detectors import REGISTRY


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    options.add_bundle(parser)
    parser.add_argument(
        "--votes", action="store_true", help="show all that each detector's vote rests on"
    )
    options.add_json(parser)


def run(arguments: Namespace) -> int:
    """Print the contents of the bundle; 2 with every fault if it is not valid."""
    bundle = Bundle.load(arguments.bundle)
    if arguments.json:
        manifest = json.loads(bundle.manifest.to_bytes())
        print(json.dumps({"id": bundle.id, "signed": bundle.is_signed, **manifest}, sort_keys=True))
    else:
        show(*_lines(bundle, all_votes=arguments.votes))
    return 0


def _lines(bundle: Bundle, *, all_votes: bool) -> Iterator[str]:
    manifest = bundle.manifest
    model, text = manifest.model, manifest.text
    yield f"bundle   {bundle.id}, every file verified"
    yield f"signed   {_signed(bundle)}"
    revision = model.revision[:16]
    yield f"model    {model.id} ({model.architecture}, {model.kind}), revision {revision}"
    yield (
        f"states   0..{model.layers} of width {model.width}, {model.dtype} graph "
        f"({model.layers} of {model.total_layers} blocks)"
    )
    if model.quantisation:
        yield f"weights  stored as {model.quantisation} in the GGUF file that was exported"
    yield f"text     template {text.template!r}, windows {text.windows} of {text.max_tokens} tokens"
    for name, graph in manifest.graphs.items():
        largest = max(graph.parity.largest.values(), default=0.0)
        rounding = max(graph.parity.rounding.values(), default=0.0)
        own = f", whose own float32 rounding is {rounding:.2g}" if rounding else ""
        yield (
            f"graph    {name}: {graph.file}, {graph.mode}, {len(graph.outputs)} outputs, opset "
            f"{graph.opset}; largest difference from PyTorch {largest:.2g}{own}, over "
            f"{graph.parity.shapes} shapes (always allowed {graph.parity.tolerance:g})"
        )
    for name, fused in manifest.fused.items():
        proof = fused.proof
        yield (
            f"fused    {name}: {fused.file}, opset {fused.opset}; largest difference from the "
            f"runtime {max(proof.largest.values(), default=0.0):.2g} over {proof.texts} texts "
            f"(allowed {proof.tolerance:g}), {proof.flips} flips"
        )
    for name, file in sorted(manifest.files.items()):
        yield f"file     {name}: {file.bytes} bytes, sha256 {file.sha256[:16]}"
    for name, card in manifest.detectors.items():
        low, high = card.fpr_interval
        clean = len(bundle.params[name]["clean_scores"])
        yield f"detector {name}: {REGISTRY[name].question}"
        yield f"         {card.method}, {card.n} rows, {clean} clean texts, seed {card.seed}"
        yield (
            f"         threshold {card.threshold:.6g}, target FPR {card.target_fpr:.3%} "
            f"(95 % interval {low:.2%} to {high:.2%})"
        )
    if manifest.decision:
        yield from _decision(manifest.decision)
    elif manifest.detectors:
        yield "decision any detector that flags; no false-positive rate is promised for the guard"
    if manifest.votes:
        votes = manifest.votes
        lines = vote_lines(votes) if all_votes else vote_reasons(votes)
        yield from (f"vote     {line}" for line in lines)
    if not manifest.detectors:
        yield "detector none yet: run `layerguard calibrate`"
    yield f"canaries {_canaries(manifest)}"


def _canaries(manifest: Manifest) -> str:
    count = str(len(manifest.canaries))
    weak = unchecked(manifest)
    if not weak:
        return count
    return (
        f"{count}, weak: none holds the score of {', '.join(weak)}, so the bundle is not served; "
        "calibrate again"
    )


def _signed(bundle: Bundle) -> str:
    if bundle.is_signed:
        return f"by {SIGNATURE}, not checked here: run `layerguard verify BUNDLE --key PUBLIC`"
    return "no: whoever made the files also made their hashes; `layerguard sign` signs a bundle"


def _decision(card: DecisionCard) -> Iterator[str]:
    shadow = f", in shadow: {', '.join(card.shadow)}" if card.shadow else ""
    yield f"decision {card.policy} of {', '.join(card.enforced)}{shadow}; {card.n} clean texts"
    if not card.promised:
        yield "         a published threshold decides: no false-positive rate is promised"
        return
    low, high = card.fpr_interval
    yield (
        f"         target FPR of the whole guard {card.target_fpr:.3%} "
        f"(95 % interval {low:.2%} to {high:.2%})"
    )
    for name, domain in sorted(card.domains.items()):
        own = ", ".join(f"{key} {value:.6g}" for key, value in sorted(domain.thresholds.items()))
        yield f"domain   {name}: {domain.n} clean texts, thresholds {own or 'of all traffic'}"
