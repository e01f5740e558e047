"""A whole decoder bundle in milliseconds: a toy causal network with a KV cache.

Blocks are attention and a bent linear map, without norms; positions enter the embedding and the
attention is grouped-query. Both graphs are made of the same nodes from the same weights.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from layerguard.runtime.bundle.manifest import ADDED_KINDS, GraphCard, OutputCard, Parity
from layerguard.runtime.bundle.npz import write_npz
from layerguard.runtime.bundle.write import replacing
from layerguard.runtime.text.roles import USER
from layerguard.runtime.types import Array
from tests.tiny import LAYERS, OPSET, WIDTH, add_canaries, added_outputs, make_manifest, params_of

HEADS, KEY_HEADS, HEAD = 4, 2, 4
POSITIONS = 4096
SPECIAL = ("<pad>", "<s>", "</s>", "<|im_end|>")
CORPUS = (
    "the garden was quiet before the rain came over the low hills, and small boats lay still.",
    "It's what I'd said: 1234 boats -- don't ask again!\n\n  indented\ttext",
    "Тихий сад перед дождём, и лодки за рекой.",
    "雨が来る前、庭は静かだった。小さな船が川に。",
    "الحديقة هادئة قبل المطر والقوارب قرب النهر",
    "ok 👍🏽 family 👨‍👩‍👧 flag 🇩🇪",
)
Nodes = list[NodeProto]


@cache
def vocabulary() -> int:
    """Tokens of the toy tokenizer."""
    return int(make_tokenizer().get_vocab_size())


def make_tokenizer() -> Tokenizer:
    """Byte-level BPE of a few hundred tokens; ``<s>`` before each text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return tokenizer


def make_graph(
    *, decode: bool, seed: int = 0, added: bool = False
) -> tuple[onnx.ModelProto, tuple[OutputCard, ...]]:
    """The network as ONNX with its output cards: with a cache, or over whole texts and pooled.

    With ``added`` it also gives what tuning added.
    """
    nodes, cards = _embedding(decode=decode), [OutputCard("state_00", "state", 0)]
    for block in range(LAYERS):
        nodes += _block(block, decode=decode)
        cards.append(OutputCard(f"state_{block + 1:02}", "state", block + 1))
        if decode:
            cards += [
                OutputCard(f"key_{block:02}", "key", block + 1),
                OutputCard(f"value_{block:02}", "value", block + 1),
            ]
    if decode:
        nodes += [
            _node("Gather", "state_{:02} minus_one", "final", LAYERS, axis=1),
            _node("MatMul", "final unembedding", "logits"),
        ]
        cards.append(OutputCard("logits", "logits", LAYERS))
    else:
        nodes += _pools()
        cards += [
            OutputCard(f"{kind}_{layer:02}", kind, layer)  # type: ignore[arg-type]
            for layer in range(LAYERS + 1)
            for kind in ("mean", "last")
        ]
    weights = _weights(seed)
    if added:
        more = added_outputs([f"state_{layer:02}" for layer in range(LAYERS + 1)])
        nodes += more[0]
        weights |= more[1]
        cards += more[2]
    graph = helper.make_graph(
        nodes,
        "tiny_decoder",
        _inputs(decode=decode),
        [_output(card) for card in cards],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.checker.check_model(model)
    return model, tuple(cards)


def make_all_params() -> dict[str, dict[str, Array]]:
    """LCF, SIREN and WeightWatch, with scores that each token of an answer moves."""
    siren, watch = params_of("siren"), params_of("weightwatch")
    weak = {name: v / 6 if name.startswith("weight_") else v for name, v in siren.items()}
    watch["low"][USER], watch["high"][USER] = -2, 2
    return {"lcf": params_of("lcf"), "siren": weak, "weightwatch": watch}


def make_bundle(
    folder: Path,
    params: dict[str, dict[str, Array]] | None = None,
    *,
    max_tokens: int = 400,
    template: str = "user: {prompt}\nassistant:",
    chat_template: str | None = None,
    tokenizer: Tokenizer | None = None,
    decode: bool = True,
    decode_adds: bool = True,
) -> Path:
    """Write a sound decoder bundle to ``folder``; its graphs give what tuning added if a detector
    reads it, the decode graph unless ``decode_adds`` is False.
    """
    params = make_all_params() if params is None else params
    with replacing(folder) as temporary:
        cards = {"score": _graph(temporary, "score", added="delta" in params)}
        if decode:
            cards["decode"] = _graph(temporary, "decode", added=decode_adds and "delta" in params)
        tokenizer = tokenizer or make_tokenizer()
        tokenizer.save(str(temporary / "tokenizer.json"))
        if chat_template is not None:
            (temporary / "chat_template.jinja").write_text(chat_template, encoding="utf-8")
        if params:
            arrays = {f"{d}/{k}": v for d, mine in params.items() for k, v in mine.items()}
            write_npz(temporary / "detectors.npz", arrays)
        manifest = make_manifest(params, (), template=template)
        add_canaries(
            temporary,
            replace(
                manifest,
                model=replace(
                    manifest.model, kind="decoder", vocabulary=max(vocabulary(), _size(tokenizer))
                ),
                text=replace(
                    manifest.text, max_tokens=max_tokens, special_tokens={"bos_token": "<s>"}
                ),
                graphs=cards,
            ),
        )
    return folder


def _size(tokenizer: Tokenizer) -> int:
    return int(tokenizer.get_vocab_size())


def _graph(folder: Path, name: str, *, added: bool = False) -> GraphCard:
    model, outputs = make_graph(decode=name == "decode", added=added)
    (folder / f"{name}.onnx").write_bytes(model.SerializeToString())
    return GraphCard(
        f"{name}.onnx",
        "decode" if name == "decode" else "pooled",
        OPSET,
        tuple(item.name for item in model.graph.input),
        outputs,
        Parity(1e-4, 1, {card.name: 0.0 for card in outputs}),
    )


def _weights(seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)

    def linear(rows: int, columns: int) -> Array:
        return (rng.normal(size=(rows, columns)) / rows**0.5).astype(np.float32)

    blocks = {
        f"{name}_{block}": linear(rows, columns)
        for block in range(LAYERS)
        for name, rows, columns in (
            ("query", WIDTH, HEADS * HEAD),
            ("key", WIDTH, KEY_HEADS * HEAD),
            ("value", WIDTH, KEY_HEADS * HEAD),
            ("out", HEADS * HEAD, WIDTH),
            ("bend", WIDTH, WIDTH),
        )
    }
    return {
        "embedding": rng.normal(size=(vocabulary(), WIDTH)).astype(np.float32),
        "position": (0.3 * rng.normal(size=(POSITIONS, WIDTH))).astype(np.float32),
        "unembedding": linear(WIDTH, vocabulary()),
        **blocks,
        **{f"index_{block}": np.array(block, np.int64) for block in range(LAYERS)},
        "zero": np.array([0], np.int64),
        "one": np.array([1], np.int64),
        "two": np.array([2], np.int64),
        "scalar_zero": np.array(0, np.int64),
        "scalar_one": np.array(1, np.int64),
        "minus_one": np.array(-1, np.int64),
        "far": np.array([1 << 40], np.int64),
        "hidden": np.array(-1e9, np.float32),
        "root": np.array(HEAD**-0.5, np.float32),
        "query_shape": np.array([0, 0, HEADS, HEAD], np.int64),
        "cache_shape": np.array([0, 0, KEY_HEADS, HEAD], np.int64),
        "group_shape": np.array([0, KEY_HEADS, HEADS // KEY_HEADS, -1, HEAD], np.int64),
        "flat_shape": np.array([0, 0, HEADS * HEAD], np.int64),
        "heads_shape": np.array([0, HEADS, -1, HEAD], np.int64),
    }


def _node(kind: str, inputs: str, outputs: str, *at: object, **attributes: object) -> NodeProto:
    """A node; names are separated by blanks, and ``at`` fills their braces, each time anew."""
    named = [part.format(*at) for part in inputs.split()]
    return helper.make_node(kind, named, [o.format(*at) for o in outputs.split()], **attributes)


def _embedding(*, decode: bool) -> Nodes:
    """State 0, and which place each new token may look at: ``bias`` [rows, 1, 1, new, all]."""
    first = "past" if decode else "zero"
    nodes = [
        _node("CumSum", "attention_mask scalar_one", "count"),
        _node("Sub", "count scalar_one", "raw_places"),
        _node("Max", "raw_places scalar_zero", "places"),
    ]
    if decode:
        nodes.append(_node("Shape", "past_key_00", "past", start=2, end=3))
    return [
        *nodes,
        _node("Slice", f"places {first} far one", "new_places"),
        _node("Gather", "embedding input_ids", "token"),
        _node("Gather", "position new_places", "where"),
        _node("Add", "token where", "state_00"),
        _node("Unsqueeze", "places one", "all_row"),
        _node("Unsqueeze", "new_places two", "new_column"),
        _node("LessOrEqual", "all_row new_column", "earlier"),
        _node("Cast", "attention_mask", "valid_flat", to=TensorProto.BOOL),
        _node("Unsqueeze", "valid_flat one", "valid"),
        _node("And", "earlier valid", "seen"),
        _node("Not", "seen", "unseen"),
        _node("Cast", "unseen", "unseen_float", to=TensorProto.FLOAT),
        _node("Mul", "unseen_float hidden", "bias_flat"),
        _node("Unsqueeze", "bias_flat one", "bias_heads"),
        _node("Unsqueeze", "bias_heads two", "bias"),
    ]


def _block(block: int, *, decode: bool) -> Nodes:
    heads_last = [0, 2, 1, 3]
    nodes = [
        _node("MatMul", "state_{0:02} query_{0}", "q_flat_{0}", block),
        _node("Reshape", "q_flat_{0} query_shape", "q_rows_{0}", block),
        _node("Transpose", "q_rows_{0}", "q_heads_{0}", block, perm=heads_last),
        _node("Reshape", "q_heads_{0} group_shape", "q_{0}", block),
    ]
    for kind in ("key", "value"):
        nodes += [
            _node("MatMul", "state_{0:02} {1}_{0}", "{1}_flat_{0}", block, kind),
            _node("Reshape", "{1}_flat_{0} cache_shape", "{1}_rows_{0}", block, kind),
            _node("Transpose", "{1}_rows_{0}", "{1}_{0:02}", block, kind, perm=heads_last),
        ]
        whole = "{1}_{0:02}"
        if decode:
            whole = "{1}_all_{0}"
            nodes.append(_node("Concat", "past_{1}_{0:02} {1}_{0:02}", whole, block, kind, axis=2))
        nodes.append(_node("Unsqueeze", f"{whole} two", "{1}_group_{0}", block, kind))
    nodes += [
        _node("Transpose", "key_group_{0}", "key_turned_{0}", block, perm=[0, 1, 2, 4, 3]),
        _node("MatMul", "q_{0} key_turned_{0}", "fit_{0}", block),
        _node("Mul", "fit_{0} root", "scaled_{0}", block),
        _node("Add", "scaled_{0} bias", "masked_{0}", block),
        _node("Softmax", "masked_{0}", "share_{0}", block, axis=-1),
        _node("MatMul", "share_{0} value_group_{0}", "read_{0}", block),
        _node("Reshape", "read_{0} heads_shape", "read_heads_{0}", block),
        _node("Transpose", "read_heads_{0}", "read_rows_{0}", block, perm=heads_last),
        _node("Reshape", "read_rows_{0} flat_shape", "read_flat_{0}", block),
        _node("MatMul", "read_flat_{0} out_{0}", "attended_{0}", block),
        _node("Add", "state_{0:02} attended_{0}", "middle_{0}", block),
        _node("MatMul", "middle_{0} bend_{0}", "moved_{0}", block),
        _node("Tanh", "moved_{0}", "bent_{0}", block),
    ]
    if not decode:
        return [*nodes, _node("Add", "middle_{0} bent_{0}", "state_{1:02}", block, block + 1)]
    return [
        *nodes,
        _node("Add", "middle_{0} bent_{0}", "whole_{0}", block),
        _node("Gather", "steering index_{0}", "steered_{0}", block, axis=0),
        _node("Transpose", "steered_{0}", "columns_{0}", block, perm=[1, 0]),
        _node("MatMul", "whole_{0} columns_{0}", "along_{0}", block),
        _node("MatMul", "along_{0} steered_{0}", "lost_{0}", block),
        _node("Sub", "whole_{0} lost_{0}", "state_{1:02}", block, block + 1),
    ]


def _pools() -> Nodes:
    """Mean and last valid token of every state."""
    nodes = [
        _node("Cast", "attention_mask", "mask_flat", to=TensorProto.FLOAT),
        _node("Unsqueeze", "mask_flat two", "mask"),
        _node("ReduceSum", "mask one", "length", keepdims=0),
        _node("ArgMax", "places", "last_place", axis=1, keepdims=0),
        _node("Unsqueeze", "last_place one", "last_index"),
    ]
    for layer in range(LAYERS + 1):
        nodes += [
            _node("Mul", "state_{0:02} mask", "kept_{0}", layer),
            _node("ReduceSum", "kept_{0} one", "sum_{0}", layer, keepdims=0),
            _node("Div", "sum_{0} length", "mean_{0:02}", layer),
            _node("GatherND", "state_{0:02} last_index", "last_{0:02}", layer, batch_dims=1),
        ]
    return nodes


def _inputs(*, decode: bool) -> Sequence[onnx.ValueInfoProto]:
    info, long, single = helper.make_tensor_value_info, TensorProto.INT64, TensorProto.FLOAT
    if not decode:
        return [info(name, long, ["rows", "tokens"]) for name in ("input_ids", "attention_mask")]
    past = ["rows", KEY_HEADS, "past", HEAD]
    return [
        info("input_ids", long, ["rows", "tokens"]),
        info("attention_mask", long, ["rows", "places"]),
        info("steering", single, [LAYERS, "directions", WIDTH]),
        *[
            info(f"past_{kind}_{block:02}", single, past)
            for block in range(LAYERS)
            for kind in ("key", "value")
        ],
    ]


def _output(card: OutputCard) -> onnx.ValueInfoProto:
    axes: dict[str, list[object]] = {
        "state": ["rows", "tokens", WIDTH],
        "key": ["rows", KEY_HEADS, "tokens", HEAD],
        "value": ["rows", KEY_HEADS, "tokens", HEAD],
        "logits": ["rows", vocabulary()],
        **{kind: ["rows", "tokens"] for kind in ADDED_KINDS},
    }
    shape = axes.get(card.kind, ["rows", WIDTH])
    return helper.make_tensor_value_info(card.name, TensorProto.FLOAT, shape)
