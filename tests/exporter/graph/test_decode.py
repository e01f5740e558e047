"""The decode graph equals the model for any chunks, and can be steered."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from transformers import BloomConfig, BloomForCausalLM, GPTJConfig, GPTJForCausalLM

from layerguard.exporter.graph import decode
from layerguard.exporter.graph.cached_attention import attend
from layerguard.exporter.graph.decode import decode_graph
from layerguard.exporter.graph.recording import output_states, recording, with_states
from layerguard.exporter.graph.spec import GraphSpec
from layerguard.exporter.graph.weights import SharedWeights
from layerguard.exporter.loading.architecture import Architecture, examine
from layerguard.exporter.loading.checkpoint import LoadedModel
from layerguard.exporter.pipeline import write_graph
from layerguard.exporter.proof.decode import ChunkedBatch, run_in_chunks
from layerguard.exporter.proof.reference import References, eager
from layerguard.exporter.proof.score import TextBatch
from layerguard.runtime.errors import ExportError
from layerguard.runtime.types import Array
from tests.exporter.in_pytorch import InPyTorch
from tests.exporter.models import DECODERS, VOCABULARY, WIDTH, build, build_causal

TOLERANCE = 1e-4
BLOCKS = 2
"""The time of a trace is proportional to the blocks."""
SHALLOW: dict[str, dict[str, Any]] = {
    "gemma2": {"final_logit_softcapping": 5.0, "attn_logit_softcapping": 2.0},
    "gemma3": {"layer_types": ["sliding_attention", "full_attention"]},
    "gpt2": {"num_hidden_layers": None, "n_layer": BLOCKS},
}


OWN = {
    "hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 50, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
"""Configuration of models that do not use transformers' AttentionInterface."""


def shallow(name: str) -> Any:
    """A decoder of two blocks with its head."""
    changes = {"num_hidden_layers": BLOCKS, **SHALLOW.get(name, {})}
    return build_causal(name, **{key: value for key, value in changes.items() if value is not None})


def spec_of(causal: Any, layers: int = BLOCKS) -> GraphSpec:
    """The specification of the decode graph of the first blocks."""
    loaded = LoadedModel(causal.base_model, causal, "0" * 40, frozenset())
    architecture = examine(causal.base_model)
    return decode_graph(
        loaded, architecture, layers, "float32", 0, References(architecture, causal)
    )


def write(spec: GraphSpec, folder: Path) -> Any:
    """Write the graph to ``folder`` and open a session on it."""
    write_graph(spec, folder, "decode.onnx", SharedWeights(folder))
    return onnxruntime.InferenceSession(str(folder / "decode.onnx"))


@dataclass(frozen=True, eq=False)
class Graph:
    """A model of two blocks and a session on its decode graph."""

    causal: Any
    session: Any

    @property
    def architecture(self) -> Architecture:
        """Of the backbone."""
        return examine(self.causal.base_model)

    def read(self, ids: Array, steering: Array) -> dict[str, Array]:
        """All outputs of a first call with an empty cache."""
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "steering": steering}
        for item in self.session.get_inputs()[3:]:
            feeds[item.name] = np.zeros((len(ids), item.shape[1], 0, item.shape[3]), np.float32)
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, feeds), strict=True))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """Grouped queries, rotary positions."""
    causal = shallow("llama")
    return Graph(causal, write(spec_of(causal), tmp_path_factory.mktemp("llama")))


@pytest.mark.parametrize(
    ("name", "open_session"),
    [*((name, InPyTorch) for name in DECODERS), ("gemma2", write), ("gpt2", write)],
)
def test_chunks_equal_whole_texts_for_every_decoder(
    name: str, open_session: Any, tmp_path: Path
) -> None:
    """States, logits, keys and values of texts in chunks equal those of whole texts.

    The longest text has 64 tokens, far more than the windows of eight. All decoders run in PyTorch;
    one with windows and soft-caps and one with learned positions also run as graphs.
    """
    spec = spec_of(shallow(name))
    session = write(spec, tmp_path) if open_session is write else open_session(spec)
    proof = spec.prove(session)
    assert proof.largest.keys() == {card.name for card in spec.outputs}
    assert {"logits", "final_norm", "state_02", "key_01", "value_01"} <= proof.largest.keys()
    worst = max(proof.largest, key=proof.largest.__getitem__)
    assert proof.largest[worst] <= TOLERANCE, worst


def test_the_graph_passes_its_export_check(llama: Graph) -> None:
    """The graph in ONNX Runtime equals the model."""
    proof = spec_of(llama.causal).prove(llama.session)
    assert max(proof.largest.values()) <= TOLERANCE


def test_masked_slots_have_no_effect(llama: Graph) -> None:
    """The largest float32 numbers in masked slots of the cache do not change the outputs."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, VOCABULARY, (1, 9))
    exact = run_in_chunks(llama.session, ChunkedBatch(TextBatch(ids, np.ones_like(ids)), (5, 4), 0))
    mask = np.ones((1, 12), np.int64)
    mask[0, 5:8] = 0
    feeds = {"input_ids": ids[:, 5:], "attention_mask": mask, "steering": _inert(1)}
    for item in llama.session.get_inputs()[3:]:
        valid = exact[item.name.removeprefix("past_")][:, :5].reshape(1, 5, item.shape[1], -1)
        noise = np.full((1, 3, *valid.shape[2:]), np.finfo(np.float32).max, np.float32)
        past = np.concatenate([valid, noise * rng.choice([-1, 1], noise.shape)], 1)
        feeds[item.name] = np.ascontiguousarray(past.swapaxes(1, 2), np.float32)
    state, logits = llama.session.run(["state_02", "logits"], feeds)
    np.testing.assert_allclose(state, exact["state_02"][:, 5:], atol=1e-5)
    np.testing.assert_allclose(logits, exact["logits"][:, 1], atol=1e-5)


def test_zero_directions_steer_nothing(
    llama: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every output is bit-identical to that of a graph without steering."""
    monkeypatch.setattr(decode, "steered", _not_steered)
    plain = Graph(llama.causal, write(spec_of(llama.causal), tmp_path))
    ids = np.random.default_rng(0).integers(0, VOCABULARY, (2, 11))
    assert "steering" not in {item.name for item in plain.session.get_inputs()[:2]}
    for rows in (1, 3):
        steered = llama.read(ids, _inert(rows))
        for name, value in plain.read(ids, _inert(rows)).items():
            np.testing.assert_array_equal(value, steered[name], err_msg=name)


def test_an_active_direction_is_removed_from_the_state(llama: Graph) -> None:
    """Its cosine after the block is below 1e-4; later states equal those of PyTorch."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, VOCABULARY, (2, 11))
    directions = np.linalg.qr(rng.normal(size=(WIDTH, 2)))[0].T.astype(np.float32)
    steering = _inert(2)
    steering[0] = directions
    steered, plain = llama.read(ids, steering), llama.read(ids, _inert(1))
    lengths = np.linalg.norm(steered["state_01"], axis=-1, keepdims=True)
    assert np.abs(steered["state_01"] @ directions.T / lengths).max() < 1e-4
    np.testing.assert_array_equal(steered["state_00"], plain["state_00"])
    with (
        _projected(llama.architecture.blocks[0], torch.from_numpy(directions)),
        recording(llama.architecture.blocks) as recorded,
        eager(llama.architecture.model),
        torch.inference_mode(),
    ):
        run = llama.causal(torch.from_numpy(ids))
    np.testing.assert_allclose(steered["state_01"], recorded.states[1].numpy(), atol=TOLERANCE)
    np.testing.assert_allclose(steered["logits"], run.logits[:, -1].numpy(), atol=TOLERANCE)
    assert np.abs(steered["logits"] - plain["logits"]).max() > 0.1


def test_fewer_layers_keep_the_first_blocks_and_no_head(llama: Graph, tmp_path: Path) -> None:
    """The graph has no logits, no final norm and no caches of the other blocks."""
    cut = Graph(llama.causal, write(spec_of(llama.causal, layers=1), tmp_path))
    ids = np.random.default_rng(0).integers(0, VOCABULARY, (2, 7))
    outputs = cut.read(ids, _inert(1)[:1])
    assert set(outputs) == {"state_00", "state_01", "key_00", "value_00"}
    whole = llama.read(ids, _inert(1))
    for name, value in outputs.items():
        np.testing.assert_array_equal(value, whole[name], err_msg=name)


def test_the_past_is_not_copied(llama: Graph, tmp_path: Path) -> None:
    """In the optimised graph only matrix products read the past keys and values."""
    import onnx  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(llama.session._model_path, options)
    graph = onnx.load(tmp_path / "optimised.onnx", load_external_data=False).graph
    readers = {
        node.op_type for node in graph.node if any(name.startswith("past_") for name in node.input)
    }
    assert readers <= {"MatMul", "FusedMatMul", "Shape"}


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda: build("bert"), "BertModel is an encoder"),
        (lambda: BloomForCausalLM(BloomConfig(**OWN)), "BloomModel takes no position ids"),
        (lambda: GPTJForCausalLM(GPTJConfig(**OWN, rotary_dim=4)), "GPTJ.*AttentionInterface"),
    ],
)
def test_a_model_without_a_decode_graph_is_refused(model: Callable[[], Any], words: str) -> None:
    """Before the trace; the message names what the model lacks, and ``--decode no``."""
    with pytest.raises(ExportError, match=words) as caught:
        spec_of(model().eval())
    assert "--decode no" in str(caught.value)


@pytest.mark.parametrize("settings", [{}, {"softcap": 1.5}, {"sinks": True}, {"scaling": 0.3}])
def test_attention_in_parts_equals_attention(settings: dict[str, Any]) -> None:
    """Grouped queries and two parts of a cache against the formula in float64, with masks."""
    rng = np.random.default_rng(0)
    query = rng.normal(size=(2, 6, 3, 8))
    keys, values = rng.normal(size=(2, 2, 2, 7, 8))
    allowed = rng.random((2, 1, 3, 7)) < 0.7
    allowed[..., 0] = True
    sinks = rng.normal(size=6)
    scores = np.einsum("bhqd,bhkd->bhqk", query, keys.repeat(3, 1))
    scores *= settings.get("scaling", 8**-0.5)
    cap = settings.get("softcap")
    scores = np.tanh(scores / cap) * cap if cap else scores
    weights = np.exp(np.where(allowed, scores, -np.inf))
    total = weights.sum(-1, keepdims=True)
    if "sinks" in settings:
        total = total + np.exp(sinks)[:, None, None]
    expected = np.einsum("bhqk,bhkd->bqhd", weights / total, values.repeat(3, 1))
    tensors = [torch.from_numpy(array).float() for array in (query, keys, values)]
    passed = {name: value for name, value in settings.items() if name != "sinks"}
    if "sinks" in settings:
        passed["s_aux"] = torch.from_numpy(sinks)
    parts = [(tensors[1][:, :, part], tensors[2][:, :, part]) for part in (slice(4), slice(4, 7))]
    attended = attend(tensors[0], parts, torch.from_numpy(allowed), passed)
    np.testing.assert_allclose(attended.numpy(), expected, atol=1e-5)


def _inert(rows: int) -> Array:
    return np.zeros((BLOCKS, rows, WIDTH), np.float32)


@contextmanager
def _not_steered(blocks: Sequence[nn.Module], steering: Tensor) -> Iterator[None]:  # noqa: ARG001
    yield


@contextmanager
def _projected(block: nn.Module, directions: Tensor) -> Iterator[None]:
    """The textbook projection, I - Q'Q, in float64."""

    def hook(_: nn.Module, __: Any, output: Any) -> Any:
        basis = directions.double()
        rest = torch.eye(WIDTH).double() - basis.T @ basis
        return with_states(output, (output_states(output).double() @ rest).float())

    with block.register_forward_hook(hook):
        yield
