"""The manifest of a bundle: the contents of ``manifest.json`` as frozen dataclasses.

The dataclasses are the schema: ``parse`` checks the JSON against them and lists every mismatch.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from layerguard.runtime.bundle.decision import DecisionCard, contradictions
from layerguard.runtime.bundle.fused import FusedCard, fused_contradictions, fused_from
from layerguard.runtime.bundle.schema import decode, parse
from layerguard.runtime.bundle.votes import VotesCard, vote_faults
from layerguard.runtime.limits import Limits
from layerguard.runtime.types import ADDED, OnUnread, Pooling, Semantics, TokenBudget, View

SCHEMA = 1
"""Manifest version that this release writes; also the newest that it reads."""

TEXT_RULES = 3
"""Version of the text rules that this release writes; also the newest that it knows."""

MAX_MANIFEST_BYTES = 4 << 20

_MOST = 2**31 - 1
"""Maximum of every size: the largest int32, the smallest index type of graph and kernels."""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """The exported transformer; the graph has ``layers`` of the model's ``total_layers``.

    ``quantisation`` lists the weight types of a GGUF model, the most frequent first; else empty.
    """

    id: str
    revision: str
    architecture: str
    model_type: str
    kind: Literal["encoder", "decoder"]
    layers: int
    total_layers: int
    width: int
    vocabulary: int
    dtype: Literal["float32", "float16", "int8"]
    quantisation: str = ""


@dataclass(frozen=True, slots=True)
class TextRules:
    """How a request is tokenised.

    ``template`` is a text that contains ``{prompt}``, or ``chat`` for the bundle's chat template.
    ``windows``: ``head-tail`` reads the first and last tokens of a long text in one pass;
    ``sliding`` reads overlapping windows, at most ``max_windows``, and uses the worst one.
    ``special_tokens`` are the names that a chat template may use: ``bos_token``, ``eos_token``, ...
    ``end_token_ids`` are the tokens that end an answer.
    ``rules_version`` is the version of the chat formatting. Scores depend on it, so a bundle keeps
    the version that it was exported with. 3: the newest turns of a chat are also read on their own
    in the view ``content``. 2: as transformers' ``apply_chat_template`` with ``tokenize=True``
    (``runtime/text/chat.py``). 1, the default: the tokenizer's opening tokens are
    added if the template does not write them, and a plain text is stripped.
    ``on_unread`` is what happens with a request that has unread parts, and ``limits`` the largest
    request, where whoever loads the guard does not say; without them, older bundles have the
    defaults.
    """

    template: str
    windows: Literal["head-tail", "sliding"]
    max_tokens: int
    max_windows: int
    pad_token_id: int
    special_tokens: dict[str, str] = field(default_factory=dict)
    end_token_ids: tuple[int, ...] = ()
    rules_version: int = 1
    on_unread: OnUnread = "flag"
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class OutputCard:
    """One output of a graph; ``layer`` is its state index (see ``runtime/types.py``)."""

    name: str
    kind: Literal[
        "state", "last", "mean", "final_norm", "final_norm_last", "final_norm_mean", "mlp_mean",
        "logits", "key", "value", "lens", "delta_down_proj", "delta_o_proj",
    ]  # fmt: skip
    layer: int


AddedKind = Literal["delta_down_proj", "delta_o_proj"]
ADDED_KINDS: tuple[AddedKind, ...] = ("delta_down_proj", "delta_o_proj")
"""Kinds of the outputs [rows, tokens] that the pooling ``ADDED`` reads: the natural logarithm of
the length of what tuning adds to the output of a block's feed-forward part, and of its attention.
The index here is the part's number, as in ``checkpoints.places.PARTS``."""


@dataclass(frozen=True, slots=True)
class Parity:
    """Result of the export check against PyTorch, over ``shapes`` batches not used in the trace.

    ``largest`` is the largest error by output. For float16 and int8 the error is 1 - cosine of a
    vector, at most ``tolerance``. For float32 it is the largest difference of a vector from PyTorch
    in float64, relative to the vector's largest element; ``rounding`` is the same error of PyTorch
    in float32. It may be at most ``tolerance`` or twenty times ``rounding``, whichever is larger,
    and never more than 1e-3. For bundles without ``rounding`` the error was |graph - PyTorch| /
    max(1, |PyTorch|) of each element, at most ``tolerance``.
    """

    tolerance: float
    shapes: int
    largest: dict[str, float]
    rounding: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GraphCard:
    """One ONNX graph of the bundle.

    ``states`` and ``pooled`` read whole texts. ``decode`` reads the next tokens of a text whose
    earlier tokens are in its cache. ``analysis`` outputs each layer's logits and has gates on the
    blocks.
    """

    file: str
    mode: Literal["states", "pooled", "decode", "analysis"]
    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[OutputCard, ...]
    parity: Parity


@dataclass(frozen=True, slots=True)
class FileCard:
    """Size in bytes and sha256 in hex of one file."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class DetectorCard:
    """How one detector was calibrated; its parameters are in ``detectors.npz``.

    A ``target_fpr`` of 1 with an interval of 0 to 1 gives no guarantee: the threshold was imported,
    not calibrated.
    ``limit`` is its token budget; None: that of ``TextRules``.
    """

    method: str
    view: View
    pooling: Pooling
    semantics: Semantics
    threshold: float
    target_fpr: float
    fpr_interval: tuple[float, ...]
    n: int
    seed: int
    calibration_sha256: str
    settings: dict[str, Any]
    limit: TokenBudget | None = None


CANARY_TOLERANCE: Mapping[str, float] = {"float32": 2e-3, "float16": 3e-2, "int8": 1e-1}
"""Tolerance relative to 1 + |score|, by the graph's dtype: the one that calibration writes and the
largest that is accepted. It allows for another processor's order of summation, whose effect LCF
amplifies in dimensions that hardly vary. A wrong graph or kernel changes scores far more."""


@dataclass(frozen=True, slots=True)
class Canary:
    """A text with known scores, which are checked when a guard is loaded.

    A score passes when ``|score - expected| <= tolerance * (1 + |expected|)``.
    """

    text: str
    scores: dict[str, float]
    tolerance: float


@dataclass(frozen=True, slots=True)
class Manifest:
    """The contents of ``manifest.json``; without a ``decision`` the policy is ``any``.

    ``fused`` holds the graphs with built-in detectors, by the name of the graph they were built
    from. ``votes`` is what calibration measured before the detectors decide; None in older bundles.
    ``text_key`` identifies the key of the hashes in ``decision/texts`` and ``decision/seen``; empty
    in older bundles, whose hashes have none.
    """

    schema: int
    model: ModelCard
    text: TextRules
    graphs: dict[str, GraphCard]
    files: dict[str, FileCard]
    versions: dict[str, str]
    detectors: dict[str, DetectorCard] = field(default_factory=dict)
    canaries: tuple[Canary, ...] = ()
    decision: DecisionCard | None = None
    fused: dict[str, FusedCard] = field(default_factory=dict)
    votes: VotesCard | None = None
    text_key: str = ""

    def to_bytes(self) -> bytes:
        """The canonical JSON with sorted keys: the same manifest gives the same bytes."""
        text = json.dumps(asdict(self), sort_keys=True, indent=1, allow_nan=False)
        return text.encode() + b"\n"


def read_manifest(data: bytes) -> tuple[Manifest | None, list[str]]:
    """The manifest in ``data`` and every fault; None if there are faults."""
    try:
        value = decode(data)
    except (ValueError, RecursionError) as error:
        return None, [f"manifest.json is not JSON ({error}); export the model again"]
    schema = value.get("schema") if isinstance(value, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        remedy = "upgrade layerguard, or export the model again with this release"
        found = f"manifest.json has schema {schema}; this release reads up to {SCHEMA}"
        return None, [f"{found}: {remedy}"]
    faults: list[str] = []
    manifest = parse(Manifest, value, "manifest.json", faults)
    if faults:
        return None, faults
    assert isinstance(manifest, Manifest)
    faults += _contradictions(manifest)
    return (None, faults) if faults else (manifest, [])


def _contradictions(manifest: Manifest) -> list[str]:
    """Values that have the right type but contradict each other."""
    model, text = manifest.model, manifest.text
    faults = [
        f"manifest.json: {name} is {value}; expected {least} to {most}"
        for name, value, least, most in (
            ("schema", manifest.schema, 1, SCHEMA),
            ("model.layers", model.layers, 1, _MOST),
            ("model.width", model.width, 1, _MOST),
            ("model.vocabulary", model.vocabulary, 1, _MOST),
            ("text.max_tokens", text.max_tokens, 8, _MOST),
            ("text.max_windows", text.max_windows, 1, _MOST),
            ("text.pad_token_id", text.pad_token_id, 0, model.vocabulary - 1),
            ("text.rules_version", text.rules_version, 1, _MOST),
        )
        if not least <= value <= most
    ]
    if text.rules_version > TEXT_RULES:
        faults.append(
            f"manifest.json: text.rules_version is {text.rules_version}; this release knows up to "
            f"{TEXT_RULES}: upgrade layerguard, or export the model again with this release"
        )
    if faults:
        return faults
    if model.layers > model.total_layers:
        faults.append(
            f"manifest.json: model.layers is {model.layers}; expected at most "
            f"total_layers, {model.total_layers}"
        )
    if text.template != "chat" and text.template.count("{prompt}") != 1:
        faults.append(
            f"manifest.json: text.template is {text.template!r}; expected 'chat' or a text with "
            "{prompt} in it once"
        )
    if "score" not in manifest.graphs:
        faults.append("manifest.json: graphs has no 'score'; export the model again")
    for name, graph in manifest.graphs.items():
        faults += _graph_contradictions(f"manifest.json: graphs.{name}", graph, model.layers)
    for name, card in manifest.detectors.items():
        faults += _card_contradictions(f"manifest.json: detectors.{name}", card, manifest)
    if manifest.decision:
        faults += contradictions(manifest.decision, manifest.detectors)
    faults += _canary_faults(manifest)
    if manifest.votes:
        faults += vote_faults(manifest.votes, manifest.detectors)
    made_of = fused_from(manifest.files, manifest.detectors, manifest.decision)
    faults += fused_contradictions(manifest.fused, made_of, manifest.detectors)
    return faults


def _card_contradictions(where: str, card: DetectorCard, manifest: Manifest) -> list[str]:
    """An invalid target, a token budget above the bundle's, or outputs that no graph has."""
    faults = []
    low, high = card.fpr_interval if len(card.fpr_interval) == 2 else (1.0, 0.0)
    promised = 0 < card.target_fpr < 1 and 0 <= low <= high <= 1
    if not promised and (card.target_fpr, low, high) != (1, 0, 1):
        faults.append(
            f"{where}: target_fpr {card.target_fpr} and fpr_interval {list(card.fpr_interval)}; "
            "expected a share between 0 and 1 and its interval"
        )
    most = manifest.text.max_tokens
    if card.limit and not 8 <= card.limit.max_tokens <= most:
        budget = card.limit.max_tokens
        faults.append(f"{where}.limit: max_tokens is {budget}; expected 8 to {most}")
    graph = manifest.graphs.get("score")
    kinds = {output.kind for output in graph.outputs} if graph else set()
    if card.pooling == "mlp_mean" and "mlp_mean" not in kinds:
        faults.append(f"{where} reads mlp_mean, which no graph has; export again with --mlp")
    if card.pooling == ADDED and kinds.isdisjoint(ADDED_KINDS):
        faults.append(
            f"{where} reads {ADDED}, which no graph has; export again with --adapter (or --base)"
        )
    return faults


def _canary_faults(manifest: Manifest) -> Iterator[str]:
    """Tolerances larger than calibration writes, which a wrong graph might pass."""
    most = CANARY_TOLERANCE[manifest.model.dtype]
    for number, canary in enumerate(manifest.canaries):
        where = f"manifest.json: canaries[{number}]"
        if not 0 <= canary.tolerance <= most:
            yield (
                f"{where}.tolerance is {canary.tolerance:g}; expected at most {most:g}, which "
                f"calibration writes for {manifest.model.dtype}: calibrate again"
            )


def added_outputs(graph: GraphCard) -> list[OutputCard]:
    """The outputs that the pooling ``ADDED`` reads, in the order of its values: by block, part."""
    cards = [card for card in graph.outputs if card.kind in ADDED_KINDS]
    return sorted(cards, key=lambda card: (card.layer, ADDED_KINDS.index(card.kind)))


def unchecked(manifest: Manifest) -> list[str]:
    """The detectors whose score no canary holds: such a bundle is not served."""
    checked = {name for canary in manifest.canaries for name in canary.scores}
    return sorted(manifest.detectors.keys() - checked)


def _graph_contradictions(where: str, graph: GraphCard, layers: int) -> list[str]:
    """Outputs that are duplicated, missing, or of a layer that does not exist."""
    faults = []
    names = [output.name for output in graph.outputs]
    if len(set(names)) < len(names):
        faults.append(f"{where} lists an output twice; expected each once: export again")
    wrong = [output.name for output in graph.outputs if not 0 <= output.layer <= layers]
    if wrong:
        faults.append(f"{where}: outputs {wrong} name a layer outside 0..{layers}")
    added = [(card.layer, card.kind) for card in added_outputs(graph)]
    if len(set(added)) < len(added) or any(layer == 0 for layer, _ in added):
        faults.append(
            f"{where} has outputs of {ADDED} of block 0, or two of one matrix; expected at most "
            f"one for each matrix of blocks 1..{layers}: export again"
        )
    kinds = {
        "states": ("state",),
        "pooled": ("last", "mean"),
        "decode": ("state", "key", "value"),
        "analysis": ("lens",),
    }[graph.mode]
    listed = {(output.kind, output.layer) for output in graph.outputs}
    for kind in kinds:
        first = 1 if kind in ("key", "value") else 0  # keys and values: from block 1
        wanted = range(first, layers + 1)
        lacking = next((layer for layer in wanted if (kind, layer) not in listed), None)
        if lacking is not None:
            faults.append(
                f"{where} has no {kind} output of layer {lacking}; expected one for each of "
                f"{first}..{layers}"
            )
    return faults
