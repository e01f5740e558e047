"""A bundle's score graph with detectors and decision in it; what nothing reads is cut off."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto

from layerguard.exporter.fused import decision, lcf, siren, weightwatch
from layerguard.exporter.fused.growing import GrowingTaps
from layerguard.exporter.fused.nodes import Nodes
from layerguard.exporter.fused.taps import Taps
from layerguard.runtime.binding import bind_detectors
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.decision.policy import Decision
from layerguard.runtime.detectors import Detector
from layerguard.runtime.errors import ExportError
from layerguard.runtime.model.plan import Planner
from layerguard.runtime.types import Source

SCORES = {
    "lcf": lcf.score,
    "siren": siren.score,
    "agent_siren": siren.score,
    "weightwatch": weightwatch.score,
}
"""By detector, what appends its arithmetic: (taps, tap, params) -> score, float64 [rows]."""

_MOST_BYTES = 2**31 - 2**20
"""Of one ONNX file."""


@dataclass(frozen=True)
class Design:
    """What of a bundle a fused graph depends on.

    Attributes:
        bundle: calibrated.
        detectors: its detectors, in the manifest's order.
    """

    bundle: Bundle
    detectors: Mapping[str, Detector]

    @classmethod
    def of(cls, bundle: Bundle) -> "Design":
        """The design for a bundle.

        Raises:
            ExportError: it has no detectors, or one that this release cannot fuse.
        """
        if not bundle.manifest.detectors:
            raise ExportError(
                f"{bundle.path} has no detectors; expected some to put into the graph: run "
                "`layerguard calibrate` first"
            )
        strange = sorted(bundle.manifest.detectors.keys() - SCORES.keys())
        if strange:
            raise ExportError(
                f"{', '.join(strange)} cannot be fused by this release; it knows "
                f"{', '.join(sorted(SCORES))}: upgrade layerguard"
            )
        design = cls(bundle, bind_detectors(bundle))
        manifest = bundle.manifest
        if (
            manifest.model.dtype == "int8"
            and design.columns
            and manifest.text.template != "{prompt}"
        ):
            raise ExportError(
                f"{', '.join(design.detectors)} read different tokens of a text, which would be "
                "two rows of one run; int8 rows share the scale of their activations. Keep one "
                "detector, or export in float32"
            )
        return design

    @cached_property
    def sources(self) -> list[Source]:
        """The different tokens that detectors read of a text, in a fixed order."""
        return list(dict.fromkeys(detector.tap.source for detector in self.detectors.values()))

    @property
    def columns(self) -> dict[str, int]:
        """By detector, its column of the input ``rows``; empty where all read the same tokens."""
        if len(self.sources) == 1:
            return {}
        return {name: self.sources.index(d.tap.source) for name, d in self.detectors.items()}

    @property
    def graphs(self) -> list[str]:
        """The exported graphs that can be fused.

        Not a decode graph in int8, whose scores depend on how a text is cut; nor one for detectors
        of what it does not give.
        """
        manifest = self.bundle.manifest
        grows = "decode" in manifest.graphs and manifest.model.dtype != "int8"
        poolings = {detector.tap.pooling for detector in self.detectors.values()}
        return ["score", "decode"] if grows and "mlp_mean" not in poolings else ["score"]

    @property
    def reads_roles(self) -> bool:
        """Whether the graph asks whose each token is."""
        params = self.bundle.params.get("weightwatch")
        return params is not None and weightwatch.reads_roles(params)


def build(design: Design, name: str = "score") -> tuple[ModelProto, dict[str, str]]:
    """The fused graph; its large weights stay in the bundle's own file.

    Inputs: those of the score graph; ``rows`` int64 [texts, sources] where detectors read
    different tokens; ``roles`` int64 [batch, tokens] where WeightWatch tells roles apart; and,
    need not be fed, ``<detector>_threshold`` float64. Outputs, all [texts]: ``<detector>_score``
    and ``<detector>_p_value`` float64, ``p_value`` float64 where the decision is calibrated, and
    ``flagged`` bool. That of the decode graph keeps its cache and logits, and reads a text in
    chunks: see ``growing.py`` for the states that go out and come in again.

    Args:
        design: of the bundle.
        name: ``score`` or ``decode``, the exported graph to start from.

    Returns:
        The graph, and by input the output that is fed there next.

    Raises:
        InputError: the graph does not give what a detector reads.
        ExportError: the parameters do not fit into one file, or the graph is not valid ONNX.
    """
    bundle = design.bundle
    card, model_card = bundle.manifest.graphs[name], bundle.manifest.model
    model = onnx.load(str(bundle.path / card.file), load_external_data=False)
    kept = {output.name for output in card.outputs if output.kind in ("logits", "key", "value")}
    outputs = [output for output in model.graph.output if output.name in kept]
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    nodes, planner = Nodes(model.graph), Planner(card, model_card.layers)
    growing = GrowingTaps(nodes, planner, model_card.width) if name == "decode" else None
    taps = growing or Taps(nodes, planner, model_card.width)
    found = {}
    for own, detector in design.detectors.items():
        raw = SCORES[own](taps, detector.tap, bundle.params[own])
        score = taps.carried(own, detector.tap, raw)
        nothing = nodes.constant(np.nan, np.float64)
        found[own] = nodes.add("Where", taps.empty, nothing, score)  # a row of padding alone
    if design.columns:
        rows = nodes.required("rows", np.int64, ("texts", "sources"))
        for own, column in design.columns.items():
            mine = nodes.add("Gather", rows, nodes.constant(column, np.int64), axis=1)
            own_score = nodes.add("Gather", found[own], mine, axis=0)
            none = nodes.add("Less", mine, nodes.constant(0, np.int64))  # would count from the end
            nothing = nodes.constant(np.nan, np.float64)
            found[own] = nodes.add("Where", none, nothing, own_score)
    _decide(nodes, bundle, found)
    _prune(model.graph)
    model.producer_name, model.producer_version = "layerguard", ""
    if model.ByteSize() > _MOST_BYTES:
        raise ExportError(
            f"the detectors' parameters make a graph of {model.ByteSize() >> 20} MB; expected less "
            "than 2048, what one ONNX file can hold. Serve this bundle with the runtime"
        )
    _check(model)
    return model, growing.states if growing else {}


def _check(model: ModelProto) -> None:
    """Refuse what is not valid ONNX; weights in another file stand in as inputs."""
    bare = ModelProto()
    bare.CopyFrom(model)
    held = list(bare.graph.initializer)
    del bare.graph.initializer[:]
    for item in held:
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
    flags = {}
    for name, score in scores.items():
        threshold = nodes.overridable(f"{name}_threshold", float(bundle.params[name]["threshold"]))
        flags[name] = decision.flagged(nodes, score, threshold)
        clean = bundle.params[name]["clean_scores"]
        nodes.output(f"{name}_score", score, np.float64)
        nodes.output(f"{name}_p_value", decision.p_value(nodes, score, clean), np.float64)
    deciding = [scores[name] for name in rule.enforced]
    blocks = rule.limits[None].blocks
    if blocks is not None:
        nodes.output("p_value", decision.guard_p_value(nodes, deciding, blocks), np.float64)
    mine = [flags[name] for name in rule.enforced]
    nodes.output("flagged", decision.together(nodes, deciding, mine, rule.policy), np.bool_)


def _prune(graph: GraphProto) -> None:
    """Leave out nodes and initialisers that no output needs; sort nothing, rename nothing."""
    needed = {item.name for item in graph.output} | {item.name for item in graph.input}
    kept: list[NodeProto] = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(_reads(node))
    initialisers = [item for item in graph.initializer if item.name in needed]
    made = {name for node in kept for name in node.output}
    # without their shapes onnxruntime optimises otherwise, and half precision gives other states
    shapes = [item for item in graph.value_info if item.name in made]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(initialisers)
    graph.value_info.extend(shapes)


def _reads(node: NodeProto) -> Sequence[str]:
    """The values that a node reads, those that its inner graphs take from outside included."""
    found = list(node.input)
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            found += [name for item in inner.node for name in _reads(item)]
            found += [item.name for item in inner.output]
    return found
