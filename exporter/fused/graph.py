"""Adds detectors and decision to a bundle's exported graph, and removes unused nodes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto

from layerguard.exporter.fused import decision
from layerguard.exporter.fused.growing import GrowingTaps
from layerguard.exporter.fused.nodes import Nodes
from layerguard.exporter.fused.registry import FUSED
from layerguard.exporter.fused.taps import Taps
from layerguard.runtime.binding import bind_detectors
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.decision.policy import Decision
from layerguard.runtime.detectors import REGISTRY, Detector
from layerguard.runtime.errors import ExportError
from layerguard.runtime.fused_inputs import token_sources
from layerguard.runtime.model.plan import Planner
from layerguard.runtime.types import TokenSource

_MOST_BYTES = 2**31 - 2**20
"""Maximum size of one ONNX file."""


@dataclass(frozen=True)
class Design:
    """The parts of a bundle that a fused graph depends on.

    Attributes:
        bundle: a calibrated bundle.
        detectors: its detectors, in the manifest's order.
    """

    bundle: Bundle
    detectors: Mapping[str, Detector]

    @classmethod
    def of(cls, bundle: Bundle) -> "Design":
        """The design for a bundle.

        Raises:
            ExportError: the bundle has no detectors, or this release cannot fuse them.
        """
        if not bundle.manifest.detectors:
            raise ExportError(
                f"{bundle.path} has no detectors; expected at least one: run "
                "`layerguard calibrate` first"
            )
        strange = sorted(bundle.manifest.detectors.keys() - FUSED.keys())
        if strange:
            raise ExportError(
                f"{', '.join(strange)} cannot be fused by this release; expected some of "
                f"{', '.join(sorted(FUSED))}: upgrade layerguard"
            )
        design = cls(bundle, bind_detectors(bundle))
        manifest = bundle.manifest
        if (
            manifest.model.dtype == "int8"
            and design.columns
            and manifest.text.template != "{prompt}"
        ):
            raise ExportError(
                f"{', '.join(design.detectors)} read different tokens of a text and need several "
                "rows per text; expected one, as int8 rows share the scale of their activations. "
                "Keep one detector, or export in float32"
            )
        return design

    @cached_property
    def sources(self) -> list[TokenSource]:
        """The distinct token sources of the detectors, in a fixed order."""
        return token_sources(self.bundle.manifest)

    @property
    def columns(self) -> dict[str, int]:
        """The column of the input ``rows`` by detector; empty if all read the same tokens."""
        if len(self.sources) == 1:
            return {}
        return {name: self.sources.index(d.tap.source) for name, d in self.detectors.items()}

    @property
    def graphs(self) -> list[str]:
        """The exported graphs that can be fused.

        A decode graph is left out in int8, where scores depend on how a text is split, and if it
        lacks the outputs that a detector reads.
        """
        manifest = self.bundle.manifest
        grows = "decode" in manifest.graphs and manifest.model.dtype != "int8"
        poolings = {detector.tap.pooling for detector in self.detectors.values()}
        return ["score", "decode"] if grows and "mlp_mean" not in poolings else ["score"]

    @property
    def reads_roles(self) -> bool:
        """Whether the graph has the input ``roles``."""
        params = self.bundle.params
        return any(FUSED[name].reads_roles(params[name]) for name in self.detectors)


def build(design: Design, name: str = "score") -> tuple[ModelProto, dict[str, str]]:
    """The fused graph; its large weights stay in the bundle's weight file.

    Inputs: those of the exported graph; ``rows`` int64 [texts, sources] if detectors read different
    tokens; ``roles`` int64 [batch, tokens] if a detector distinguishes roles; and the optional
    ``<detector>_threshold``, float64. Outputs, all [texts]: ``<detector>_score`` and
    ``<detector>_p_value`` float64, ``p_value`` float64 if the decision is calibrated, and
    ``flagged`` bool. A fused decode graph keeps the cache and the logits, and reads a text in
    chunks; see ``growing.py`` for its states.

    Args:
        design: design of the bundle.
        name: ``score`` or ``decode``, the exported graph to start from.

    Returns:
        The graph, and for each state input the output that is fed to it next.

    Raises:
        InputError: the exported graph lacks an output that a detector reads.
        ExportError: the graph is too large for one file, or is not valid ONNX.
    """
    bundle = design.bundle
    card, model_card = bundle.manifest.graphs[name], bundle.manifest.model
    model = onnx.load(str(bundle.path / card.file), load_external_data=False)
    cached = {output.name for output in card.outputs if output.kind in ("logits", "key", "value")}
    outputs = [output for output in model.graph.output if output.name in cached]
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    nodes, planner = Nodes(model.graph), Planner(card, model_card.layers)
    growing = GrowingTaps(nodes, planner, model_card.width) if name == "decode" else None
    taps = growing or Taps(nodes, planner, model_card.width)
    scores = {}
    for own, detector in design.detectors.items():
        raw = FUSED[own].score(taps, detector.tap, bundle.params[own])
        score = taps.carried(own, detector.tap, raw)
        nan = nodes.constant(np.nan, np.float64)
        scores[own] = nodes.add("Where", taps.empty, nan, score)  # a row with padding only
    if design.columns:
        rows = nodes.required("rows", np.int64, ("texts", "sources"))
        for own, column in design.columns.items():
            own_rows = nodes.add("Gather", rows, nodes.constant(column, np.int64), axis=1)
            own_score = nodes.add("Gather", scores[own], own_rows, axis=0)
            # Gather would count a negative index from the end
            negative = nodes.add("Less", own_rows, nodes.constant(0, np.int64))
            nan = nodes.constant(np.nan, np.float64)
            scores[own] = nodes.add("Where", negative, nan, own_score)
    _decide(nodes, bundle, scores)
    _prune(model.graph)
    model.producer_name, model.producer_version = "layerguard", ""
    if model.ByteSize() > _MOST_BYTES:
        raise ExportError(
            f"the graph with the detectors' parameters has {model.ByteSize() >> 20} MB; expected "
            "less than 2048, the maximum of an ONNX file. Serve this bundle with the runtime"
        )
    _check(model)
    return model, growing.states if growing else {}


def _check(model: ModelProto) -> None:
    """Check the graph with onnx; external weights are replaced by inputs for the check."""
    bare = ModelProto()
    bare.CopyFrom(model)
    initialisers = list(bare.graph.initializer)
    del bare.graph.initializer[:]
    for item in initialisers:
        if item.data_location == onnx.TensorProto.EXTERNAL:
            info = onnx.helper.make_tensor_value_info(item.name, item.data_type, item.dims)
            bare.graph.input.append(info)
        else:
            bare.graph.initializer.append(item)
    try:
        onnx.checker.check_model(bare)
    except onnx.checker.ValidationError as error:
        raise ExportError(
            f"the fused graph is not valid ONNX ({error}); expected one of opset "
            f"{model.opset_import[0].version}. Try another version of onnx"
        ) from error


def _decide(nodes: Nodes, bundle: Bundle, scores: Mapping[str, str]) -> None:
    """Append thresholds, p-values and the decision, and name the outputs."""
    rule = Decision(bundle)
    flags: dict[str, str] = {}
    unfamiliar = ""
    for name, score in sorted(scores.items(), key=lambda item: REGISTRY[item[0]].decides):
        threshold = nodes.overridable(f"{name}_threshold", float(bundle.params[name]["threshold"]))
        if unfamiliar:
            largest = nodes.constant(rule.cautious(name).thresholds[name], np.float64)
            larger = nodes.add("Max", threshold, largest)
            threshold = nodes.add("Where", unfamiliar, larger, threshold)
        flags[name] = decision.flagged(nodes, score, threshold)
        if not REGISTRY[name].decides and len(rule.limits) > 1:
            unfamiliar = flags[name]
        clean = bundle.params[name]["clean_scores"]
        nodes.output(f"{name}_score", score, np.float64)
        nodes.output(f"{name}_p_value", decision.p_value(nodes, score, clean), np.float64)
    deciding = [scores[name] for name in rule.enforced]
    blocks = rule.limits[None].blocks
    if blocks is not None:
        nodes.output("p_value", decision.guard_p_value(nodes, deciding, blocks), np.float64)
    deciding_flags = [flags[name] for name in rule.enforced]
    flagged = decision.combined(nodes, deciding, deciding_flags, rule.policy)
    nodes.output("flagged", flagged, np.bool_)


def _prune(graph: GraphProto) -> None:
    """Remove nodes and initialisers that no output needs; order and names do not change."""
    needed = {item.name for item in graph.output} | {item.name for item in graph.input}
    used: list[NodeProto] = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            used.append(node)
            needed.update(_reads(node))
    initialisers = [item for item in graph.initializer if item.name in needed]
    computed = {name for node in used for name in node.output}
    # without the shapes onnxruntime optimises differently, which changes half-precision states
    shapes = [item for item in graph.value_info if item.name in computed]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(reversed(used))
    graph.initializer.extend(initialisers)
    graph.value_info.extend(shapes)


def _reads(node: NodeProto) -> Sequence[str]:
    """The values that a node reads, including those that its subgraphs read."""
    names = list(node.input)
    for attribute in node.attribute:
        for subgraph in (attribute.g, *attribute.graphs):
            names += [name for item in subgraph.node for name in _reads(item)]
            names += [item.name for item in subgraph.output]
    return names
