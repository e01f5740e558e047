"""A whole bundle in milliseconds: a toy residual network as ONNX, a word tokenizer, detectors.

The network is not a transformer. It has what the runtime needs: an embedding, L residual blocks
that mix a token with the mean of its text, and the outputs of an exported graph.
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from layerguard.runtime import Bundle, Guard, detectors
from layerguard.runtime.binding import bind_detectors
from layerguard.runtime.bundle.manifest import (
    ADDED_KINDS,
    CANARY_TOLERANCE,
    TEXT_RULES,
    Canary,
    DetectorCard,
    GraphCard,
    Manifest,
    ModelCard,
    OutputCard,
    Parity,
    TextRules,
)
from layerguard.runtime.bundle.npz import write_npz
from layerguard.runtime.bundle.write import replacing, seal
from layerguard.runtime.errors import LayerGuardError
from layerguard.runtime.model.backbone import Backbone
from layerguard.runtime.types import Array
from tests.scorers import CALIBRATED

LAYERS, WIDTH = 3, 16
WORDS = (
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "<|im_end|>", "a", "the", "garden", "was", "quiet",
    "before", "rain", "came", "over", "low", "hills", "and", "small", "boats", "lay", "still",
    "near", "river", "ignore", "all", "previous", "rules", "now",
)  # fmt: skip
OPSET = 18
Mode = Literal["states", "pooled"]


def make_tokenizer() -> Tokenizer:
    """One token a word; [CLS] and [SEP] around each text."""
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(WORDS[:5]))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


CHANGED = ((1, 0), (1, 1), (3, 0))
"""Block and part of the matrices that tuning changed, in graphs that give what it added."""


def changes() -> dict[tuple[int, int], Array]:
    """The change of each of them, applied to the state after the block: float32 [hidden, 5]."""
    rng = np.random.default_rng(7)
    return {place: rng.normal(size=(WIDTH, 5)).astype(np.float32) for place in CHANGED}


def added_outputs(
    states: Sequence[str],
) -> tuple[list[NodeProto], dict[str, Array], list[OutputCard]]:
    """Nodes, constants and cards of what tuning added at each token.

    Args:
        states: names of the states [rows, tokens, hidden].
    """
    node, nodes, cards = helper.make_node, [], []
    constants: dict[str, Array] = {
        "added_floor": np.array(1e-6, np.float32),
        "added_hidden": np.array([2], np.int64),
    }
    for (layer, part), change in changes().items():
        name = f"{ADDED_KINDS[part]}_{layer:02}"
        constants[f"{name}_change"] = change
        nodes += [
            node("MatMul", [states[layer], f"{name}_change"], [f"{name}_moved"]),
            node("ReduceL2", [f"{name}_moved", "added_hidden"], [f"{name}_length"], keepdims=0),
            node("Max", [f"{name}_length", "added_floor"], [f"{name}_bounded"]),
            node("Log", [f"{name}_bounded"], [name]),
        ]
        cards.append(OutputCard(name, ADDED_KINDS[part], layer))
    return nodes, constants, cards


def make_graph(
    mode: Mode, seed: int = 0, *, token_states: bool = False, added: bool = False
) -> tuple[onnx.ModelProto, tuple[OutputCard, ...]]:
    """The network as ONNX, weights inside, and the cards of its outputs.

    A pooled graph gives every token's states too where ``token_states`` asks for them; ``added``
    asks for what tuning added.
    """
    rng = np.random.default_rng(seed)
    constants = {
        "embedding": rng.normal(size=(len(WORDS), WIDTH)).astype(np.float32),
        "one": np.array(1, np.int64),
        "axis_one": np.array([1], np.int64),
        "axis_last": np.array([2], np.int64),
        **{
            f"block_{i}": (rng.normal(size=(WIDTH, WIDTH)) / WIDTH**0.5).astype(np.float32)
            for i in range(1, LAYERS + 1)
        },
    }
    node = helper.make_node
    nodes = [
        node("Gather", ["embedding", "input_ids"], ["h_0"]),
        node("Cast", ["attention_mask"], ["mask_flat"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["mask_flat", "axis_last"], ["mask"]),
        node("ReduceSum", ["mask", "axis_one"], ["count"], keepdims=1),
        node("ReduceSum", ["attention_mask", "axis_one"], ["length"], keepdims=1),
        node("Sub", ["length", "one"], ["final_token"]),
        node("Unsqueeze", ["final_token", "axis_last"], ["final_index"]),
    ]
    for i in range(LAYERS + 1):
        nodes += [
            node("Mul", [f"h_{i}", "mask"], [f"masked_{i}"]),
            node("ReduceSum", [f"masked_{i}", "axis_one"], [f"sum_{i}"], keepdims=1),
            node("Div", [f"sum_{i}", "count"], [f"average_{i}"]),
        ]
        if i < LAYERS:
            nodes += [
                node("Add", [f"h_{i}", f"average_{i}"], [f"mixed_{i}"]),
                node("MatMul", [f"mixed_{i}", f"block_{i + 1}"], [f"moved_{i}"]),
                node("Tanh", [f"moved_{i}"], [f"bent_{i}"]),
                node("Add", [f"h_{i}", f"bent_{i}"], [f"h_{i + 1}"]),
            ]
    cards = []
    for i in range(LAYERS + 1):
        if mode == "states" or token_states:
            nodes.append(node("Identity", [f"h_{i}"], [f"state_{i:02}"]))
            cards.append(OutputCard(f"state_{i:02}", "state", i))
        if mode == "states":
            continue
        nodes += [
            node("Squeeze", [f"average_{i}", "axis_one"], [f"mean_{i:02}"]),
            node("Expand", ["final_index", f"row_{i}"], [f"index_{i}"]),
            node("GatherElements", [f"h_{i}", f"index_{i}"], [f"token_{i}"], axis=1),
            node("Squeeze", [f"token_{i}", "axis_one"], [f"last_{i:02}"]),
        ]
        constants[f"row_{i}"] = np.array([1, 1, WIDTH], np.int64)
        cards += [OutputCard(f"mean_{i:02}", "mean", i), OutputCard(f"last_{i:02}", "last", i)]
    if added:
        more = added_outputs([f"h_{i}" for i in range(LAYERS + 1)])
        nodes += more[0]
        constants |= more[1]
        cards += more[2]
    axes: dict[str, list[str | int]] = {"state": ["rows", "tokens", WIDTH]}
    axes |= {kind: ["rows", "tokens"] for kind in ADDED_KINDS}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["rows", "tokens"])
            for name in ("input_ids", "attention_mask")
        ],
        [
            helper.make_tensor_value_info(
                c.name, TensorProto.FLOAT, axes.get(c.kind, ["rows", WIDTH])
            )
            for c in cards
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.checker.check_model(model)
    return model, tuple(cards)


def make_params(seed: int = 0) -> dict[str, dict[str, Array]]:
    """Parameters of both detectors with thresholds that ordinary words do not reach."""
    rng = np.random.default_rng(seed)
    calibrated = {
        "threshold": np.array(1e3),
        "clean_scores": np.sort(rng.random(50)),
        "target_fpr": np.array(0.05),
        "fpr_interval": np.array([0.01, 0.1]),
    }
    neurons = np.tile(np.arange(WIDTH, dtype=np.int32), LAYERS)
    lcf = {
        "mu": rng.normal(size=(LAYERS, WIDTH)).astype(np.float32),
        "sigma": rng.uniform(0.5, 2, (LAYERS, WIDTH)).astype(np.float32),
        "score_mean": np.full(LAYERS, 4.0),
        "score_scale": np.full(LAYERS, 1.5),
        "centre": np.zeros(LAYERS),
        "precision": np.eye(LAYERS),
        **calibrated,
    }
    siren = {
        "layers": np.arange(1, LAYERS + 1, dtype=np.int32),
        "neuron_offsets": np.arange(LAYERS + 1, dtype=np.int32) * WIDTH,
        "neurons": neurons,
        "alpha": np.linspace(0.1, 1, LAYERS).astype(np.float32),
        "weight_0": rng.normal(size=(8, len(neurons))).astype(np.float32),
        "bias_0": rng.normal(size=8).astype(np.float32),
        "weight_1": rng.normal(size=(2, 8)).astype(np.float32),
        "bias_1": np.zeros(2, np.float32),
        **calibrated,
    }
    return {"lcf": lcf, "siren": siren}


def params_of(name: str) -> dict[str, Array]:
    """Parameters of any detector, of those too that the toy bundle has not from the start."""
    params = make_params()
    if name == "agent_siren":
        rng = np.random.default_rng(1)
        readout = np.stack([np.zeros(WIDTH), rng.normal(size=WIDTH)]).astype(np.float32)
        linear = {
            "layers": np.array([2], np.int32),
            "neuron_offsets": np.array([0, WIDTH], np.int32),
            "neurons": np.arange(WIDTH, dtype=np.int32),
            "alpha": np.ones(1, np.float32),
            "weight_0": readout,
            "bias_0": np.array([0, 0.3], np.float32),
        }
        params[name] = linear | {key: params["siren"][key] for key in CALIBRATED}
    if name == "familiarity":
        rng = np.random.default_rng(3)
        directions = np.linalg.qr(rng.normal(size=(WIDTH, 4)))[0].T * 0.9
        distances = {
            "layer": np.array(1, np.int32),
            "centres": rng.normal(size=(2, WIDTH)).astype(np.float32),
            "scale": rng.uniform(0.5, 2, WIDTH).astype(np.float32),
            "directions": directions.astype(np.float32),
        }
        params[name] = distances | {key: params["siren"][key] for key in CALIBRATED}
    if name == "delta":
        params[name] = _delta() | {key: params["siren"][key] for key in CALIBRATED}
    if name == "span":
        params[name] = _span() | {key: params["siren"][key] for key in CALIBRATED}
    if name == "weightwatch":
        params[name] = _weightwatch() | {key: params["siren"][key] for key in CALIBRATED}
    return params[name]


def _delta() -> dict[str, Array]:
    """Centres amid the values of ordinary words."""
    return {
        "layers": np.array([layer for layer, _ in CHANGED], np.int32),
        "parts": np.array([part for _, part in CHANGED], np.uint8),
        "centre": np.array([2.5, 2.5, 3.0], np.float32),
        "scale": np.array([0.5, 0.25, 1.0], np.float32),
    }


def _span() -> dict[str, Array]:
    """A probe of two states, with a window of four tokens."""
    rng = np.random.default_rng(3)
    return {
        "layers": np.array([1, 3], np.int32),
        "weights": rng.normal(size=(2, WIDTH)).astype(np.float32),
        "bias": np.array(-0.5),
        "window": np.array(4, np.int32),
    }


def _weightwatch() -> dict[str, Array]:
    """Three directions of the state after block 1, two after block 3; only the user was seen."""
    rng = np.random.default_rng(2)
    directions = rng.normal(size=(5, WIDTH))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    high = np.repeat(rng.uniform(0.2, 0.4, (1, 5)), 4, axis=0).astype(np.float32)
    return {
        "directions": directions.astype(np.float32),
        "layers": np.array([1, 1, 1, 3, 3], np.int32),
        "parts": np.array([0, 0, 1, 0, 1], np.uint8),
        "ranks": np.array([0, 1, 0, 0, 0], np.int32),
        "singular_values": np.array([3, 2, 1, 3, 2], np.float32),
        "low": -high,
        "high": high,
        "scale": np.full((4, 5), 0.05, np.float32),
        "roles_seen": np.array([False, True, False, False]),
    }


def make_manifest(
    params: dict[str, dict[str, Array]],
    outputs: tuple[OutputCard, ...],
    *,
    mode: Mode = "pooled",
    template: str = "{prompt}",
    windows: Literal["head-tail", "sliding"] = "head-tail",
    canaries: tuple[Canary, ...] = (),
) -> Manifest:
    """A manifest that fits the network above; ``files`` is filled when the bundle is sealed."""
    taps = {name: (kind.tap.view, kind.tap.pooling) for name, kind in detectors.REGISTRY.items()}
    return Manifest(
        schema=1,
        model=ModelCard(
            "tiny", "0" * 40, "Tiny", "tiny", "encoder",
            LAYERS, LAYERS, WIDTH, len(WORDS), "float32",
        ),
        text=TextRules(
            template, windows, 12, 4, 0, {"eos_token": "[SEP]"}, rules_version=TEXT_RULES
        ),
        graphs={
            "score": GraphCard(
                "score.onnx",
                mode,
                OPSET,
                ("input_ids", "attention_mask"),
                outputs,
                Parity(1e-4, 1, {card.name: 0.0 for card in outputs}),
            )
        },
        files={},
        versions={"layerguard": "0.1.0"},
        detectors={
            name: DetectorCard(
                "cross-fit", *taps[name], "block", float(mine["threshold"]),
                float(mine["target_fpr"]), tuple(mine["fpr_interval"].tolist()),
                50, 0, "0" * 64, {},
            )
            for name, mine in params.items()
        },
        canaries=canaries,
    )  # fmt: skip


def make_bundle(
    folder: Path,
    params: dict[str, dict[str, Array]] | None = None,
    *,
    mode: Mode = "pooled",
    template: str = "{prompt}",
    chat_template: str | None = None,
    windows: Literal["head-tail", "sliding"] = "head-tail",
    canaries: tuple[Canary, ...] | None = None,
) -> Path:
    """Write a sound bundle to ``folder``, with one canary unless others are given."""
    params = make_params() if params is None else params
    token_states = bool({"span", "weightwatch"} & params.keys())
    model, outputs = make_graph(mode, token_states=token_states, added="delta" in params)
    with replacing(folder) as temporary:
        (temporary / "score.onnx").write_bytes(model.SerializeToString())
        make_tokenizer().save(str(temporary / "tokenizer.json"))
        if chat_template is not None:
            (temporary / "chat_template.jinja").write_text(chat_template, encoding="utf-8")
        if params:
            arrays = {f"{d}/{k}": v for d, mine in params.items() for k, v in mine.items()}
            write_npz(temporary / "detectors.npz", arrays)
        manifest = make_manifest(params, outputs, mode=mode, template=template, windows=windows)
        add_canaries(temporary, manifest, canaries)
    return folder


def add_canaries(
    folder: Path, manifest: Manifest, canaries: tuple[Canary, ...] | None = None
) -> Manifest:
    """Seal the bundle with these canaries, or with one that holds what the bundle scores."""
    if canaries is None:
        seal(folder, manifest)
        canaries = _scored(folder) if manifest.detectors else ()
    return seal(folder, replace(manifest, canaries=canaries))


def rescore(folder: Path) -> Path:
    """Write the canary of a bundle whose files were changed anew."""
    add_canaries(folder, replace(Bundle.load(folder).manifest, canaries=()))
    return folder


_CANARY = "a quiet garden"
_SCORED: dict[str, tuple[Canary, ...]] = {}
"""Canaries by the id of the bundle without them."""


def _scored(folder: Path) -> tuple[Canary, ...]:
    """A text with its scores; zeros where the bundle has none, which a guard then refuses."""
    bundle = Bundle.load(folder)
    if bundle.id not in _SCORED:
        scores = dict.fromkeys(bundle.manifest.detectors, 0.0)
        with suppress(LayerGuardError):
            guard = Guard(bundle, Backbone(bundle, threads=1), bind_detectors(bundle))
            readings = guard.check(_CANARY, counted=False).readings
            finite = (own for own in readings.items() if math.isfinite(own[1].score))
            scores |= {name: reading.score for name, reading in finite}
        tolerance = CANARY_TOLERANCE[bundle.manifest.model.dtype]
        _SCORED[bundle.id] = (Canary(_CANARY, scores, tolerance),)
    return _SCORED[bundle.id]
