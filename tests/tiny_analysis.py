"""The toy bundle of ``tests.tiny`` with an analysis graph, and that network in float64.

The network is the one of the toy's score graph; its last state times an unembedding are its logits.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from layerguard.runtime.bundle.manifest import GraphCard, OutputCard, Parity
from layerguard.runtime.bundle.write import replacing, seal
from layerguard.runtime.types import Array
from tests.tiny import LAYERS, OPSET, WIDTH, WORDS, make_graph, make_manifest, make_tokenizer

INPUTS = ("input_ids", "attention_mask", "bypass", "keep")


def weights(seed: int = 0) -> dict[str, Array]:
    """``embedding`` and ``unembedding`` [words, width], ``block`` [layers, width, width]."""
    rng = np.random.default_rng(seed)
    return {
        "embedding": rng.normal(size=(len(WORDS), WIDTH)).astype(np.float32),
        "unembedding": rng.normal(size=(len(WORDS), WIDTH)).astype(np.float32),
        "block": (rng.normal(size=(LAYERS, WIDTH, WIDTH)) / WIDTH**0.5).astype(np.float32),
    }


def lens(ids: Array, bypass: Array, keep: Array) -> list[Array]:
    """Logits of states 0..L for one row of ids without padding, in float64.

    Args:
        ids: int [tokens].
        bypass: bool [L].
        keep: [L, width].
    """
    w = {name: value.astype(np.float64) for name, value in weights().items()}
    states = w["embedding"][ids]
    logits = [w["unembedding"] @ states[-1]]
    for block, skipped, kept in zip(w["block"], bypass, keep, strict=True):
        written = states if skipped else states + np.tanh((states + states.mean(0)) @ block)
        states = written * kept
        logits.append(w["unembedding"] @ states[-1])
    return logits


def make_analysis_graph() -> tuple[onnx.ModelProto, tuple[OutputCard, ...]]:
    """The network under gates as ONNX for rows without padding, and the cards of its outputs."""
    w = weights()
    constants = {
        "embedding": w["embedding"],
        "head": w["unembedding"].T.copy(),
        "tokens_axis": np.array([1], np.int64),
        "last": np.array(-1, np.int64),
        "gate_axes": np.array([1, 2], np.int64),
        **{f"block_{i}": block for i, block in enumerate(w["block"])},
        **{f"number_{i}": np.array(i, np.int64) for i in range(LAYERS)},
    }
    node = helper.make_node
    nodes = [node("Gather", ["embedding", "input_ids"], ["h_0"])]
    for i in range(LAYERS + 1):
        nodes += [
            node("Gather", [f"h_{i}", "last"], [f"token_{i}"], axis=1),
            node("MatMul", [f"token_{i}", "head"], [f"lens_{i:02}"]),
        ]
        if i < LAYERS:
            nodes += [
                node("ReduceMean", [f"h_{i}", "tokens_axis"], [f"average_{i}"], keepdims=1),
                node("Add", [f"h_{i}", f"average_{i}"], [f"mixed_{i}"]),
                node("MatMul", [f"mixed_{i}", f"block_{i}"], [f"moved_{i}"]),
                node("Tanh", [f"moved_{i}"], [f"bent_{i}"]),
                node("Add", [f"h_{i}", f"bent_{i}"], [f"written_{i}"]),
                node("Gather", ["bypass", f"number_{i}"], [f"skipped_{i}"], axis=1),
                node("Unsqueeze", [f"skipped_{i}", "gate_axes"], [f"skip_{i}"]),
                node("Where", [f"skip_{i}", f"h_{i}", f"written_{i}"], [f"passed_{i}"]),
                node("Gather", ["keep", f"number_{i}"], [f"kept_{i}"], axis=1),
                node("Unsqueeze", [f"kept_{i}", "tokens_axis"], [f"kept_wide_{i}"]),
                node("Mul", [f"passed_{i}", f"kept_wide_{i}"], [f"h_{i + 1}"]),
            ]
    value = helper.make_tensor_value_info
    cards = tuple(OutputCard(f"lens_{i:02}", "lens", i) for i in range(LAYERS + 1))
    graph = helper.make_graph(
        nodes,
        "tiny-analysis",
        [
            value("input_ids", TensorProto.INT64, ["rows", "tokens"]),
            value("attention_mask", TensorProto.INT64, ["rows", "tokens"]),
            value("bypass", TensorProto.BOOL, ["rows", LAYERS]),
            value("keep", TensorProto.FLOAT, ["rows", LAYERS, WIDTH]),
        ],
        [value(card.name, TensorProto.FLOAT, ["rows", len(WORDS)]) for card in cards],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.checker.check_model(model)
    return model, cards


def make_traceable(folder: Path, *, template: str = "{prompt}") -> Path:
    """Write a sound bundle with an analysis graph and no detectors to ``folder``."""
    score, outputs = make_graph("pooled")
    analysis, cards = make_analysis_graph()
    manifest = make_manifest({}, outputs, template=template)
    parity = Parity(1e-4, 1, {card.name: 0.0 for card in cards})
    card = GraphCard("analysis.onnx", "analysis", OPSET, INPUTS, cards, parity)
    with replacing(folder) as temporary:
        (temporary / "score.onnx").write_bytes(score.SerializeToString())
        (temporary / "analysis.onnx").write_bytes(analysis.SerializeToString())
        make_tokenizer().save(str(temporary / "tokenizer.json"))
        seal(temporary, replace(manifest, graphs={**manifest.graphs, "analysis": card}))
    return folder
