"""The decode graph is the model, whatever the chunks, and can be steered."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
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
from layerguard.exporter.graph.decode import decode_part
from layerguard.exporter.graph.part import Part
from layerguard.exporter.graph.recording import first, recording, replaced
from layerguard.exporter.graph.weights import SharedWeights
from layerguard.exporter.loading.architecture import Architecture, examine
from layerguard.exporter.loading.checkpoint import Loaded
from layerguard.exporter.pipeline import write_graph
from layerguard.exporter.proof.decode import Continued, continue_texts
from layerguard.exporter.proof.reference import References, eager
from layerguard.exporter.proof.score import Case
from layerguard.runtime.errors import ExportError
from layerguard.runtime.types import Array
from tests.exporter.in_pytorch import InPyTorch
from tests.exporter.models import DECODERS, VOCABULARY, WIDTH, build, build_causal

LIMIT = 1e-4
BLOCKS = 2
"""A graph's time to be traced is its blocks'."""
SHALLOW: dict[str, dict[str, Any]] = {
    "gemma2": {"final_logit_softcapping": 5.0, "attn_logit_softcapping": 2.0},
    "gemma3": {"layer_types": ["sliding_attention", "full_attention"]},
    "gpt2": {"num_hidden_layers": None, "n_layer": BLOCKS},
}


OWN = {
    "hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 50, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
"""Of models whose attention is their own."""


def shallow(name: str) -> Any:
    """A decoder of two blocks with its head."""
    changes = {"num_hidden_layers": BLOCKS, **SHALLOW.get(name, {})}
    return build_causal(name, **{key: value for key, value in changes.items() if value is not None})


def part_of(causal: Any, layers: int = BLOCKS) -> Part:
    """The decode graph of its first blocks, before it is written."""
    loaded = Loaded(causal.base_model, causal, "0" * 40, frozenset())
    architecture = examine(causal.base_model)
    return decode_part(loaded, architecture, layers, "float32", 0, References(architecture, causal))


def write(part: Part, folder: Path) -> Any:
    """A session on the part's graph in ``folder``."""
    write_graph(part, folder, "decode.onnx", SharedWeights(folder))
    return onnxruntime.InferenceSession(str(folder / "decode.onnx"))


@dataclass(frozen=True, eq=False)
class Graph:
    """A model of two blocks and its decode graph in a session."""

    causal: Any
    session: Any

    @property
    def architecture(self) -> Architecture:
        """Of the backbone."""
        return examine(self.causal.base_model)

    def read(self, ids: Array, steering: Array) -> dict[str, Array]:
        """All outputs of the first call, with no past."""
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "steering": steering}
        for item in self.session.get_inputs()[3:]:
            feeds[item.name] = np.zeros((len(ids), item.shape[1], 0, item.shape[3]), np.float32)
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, feeds), strict=True))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """Grouped queries, rotary positions."""
    causal = shallow("llama")
    return Graph(causal, write(part_of(causal), tmp_path_factory.mktemp("llama")))


@pytest.mark.parametrize(
    ("name", "place"),
    [*((name, InPyTorch) for name in DECODERS), ("gemma2", write), ("gpt2", write)],
)
def test_every_decoder_continues_its_texts(name: str, place: Any, tmp_path: Path) -> None:
    """States, logits, keys and values of texts in chunks are those of the texts read at once.

    The longest text, 64 tokens, is far beyond the windows of eight. All in PyTorch; as graphs the
    one with windows and soft-caps, and the one with learned positions.
    """
    part = part_of(shallow(name))
    proof = part.prove(write(part, tmp_path) if place is write else place(part))
    assert proof.largest.keys() == {card.name for card in part.outputs}
    assert {"logits", "final_norm", "state_02", "key_01", "value_01"} <= proof.largest.keys()
    worst = max(proof.largest, key=proof.largest.__getitem__)
    assert proof.largest[worst] <= LIMIT, worst


def test_the_graph_continues_its_texts(llama: Graph) -> None:
    """As the module does, in ONNX Runtime."""
    proof = part_of(llama.causal).prove(llama.session)
    assert max(proof.largest.values()) <= LIMIT


def test_what_unused_places_hold_does_not_matter(llama: Graph) -> None:
    """Places masked 0 change no bit, though they hold numbers as large as float32 has."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, VOCABULARY, (1, 9))
    exact = continue_texts(llama.session, Continued(Case(ids, np.ones_like(ids)), (5, 4), 0))
    mask = np.ones((1, 12), np.int64)
    mask[0, 5:8] = 0
    feeds = {"input_ids": ids[:, 5:], "attention_mask": mask, "steering": _inert(1)}
    for item in llama.session.get_inputs()[3:]:
        kept = exact[item.name.removeprefix("past_")][:, :5].reshape(1, 5, item.shape[1], -1)
        noise = np.full((1, 3, *kept.shape[2:]), np.finfo(np.float32).max, np.float32)
        past = np.concatenate([kept, noise * rng.choice([-1, 1], noise.shape)], 1)
        feeds[item.name] = np.ascontiguousarray(past.swapaxes(1, 2), np.float32)
    state, logits = llama.session.run(["state_02", "logits"], feeds)
    np.testing.assert_allclose(state, exact["state_02"][:, 5:], atol=1e-5)
    np.testing.assert_allclose(logits, exact["logits"][:, 1], atol=1e-5)


def test_zero_directions_steer_nothing(
    llama: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every output has the bits of a graph that was exported without steering."""
    monkeypatch.setattr(decode, "steered", _not_steered)
    part = part_of(llama.causal)
    plain = Graph(llama.causal, write(part, tmp_path))
    ids = np.random.default_rng(0).integers(0, VOCABULARY, (2, 11))
    assert "steering" not in {item.name for item in plain.session.get_inputs()[:2]}
    for rows in (1, 3):
        steered = llama.read(ids, _inert(rows))
        for name, value in plain.read(ids, _inert(rows)).items():
            np.testing.assert_array_equal(value, steered[name], err_msg=name)


def test_an_active_direction_is_gone_from_the_state(llama: Graph) -> None:
    """Its cosine after the block is below 1e-4, and the rest is what PyTorch makes of that."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, VOCABULARY, (2, 11))
    directions = np.linalg.qr(rng.normal(size=(WIDTH, 2)))[0].T.astype(np.float32)
    steering = _inert(2)
    steering[0] = directions
    found, plain = llama.read(ids, steering), llama.read(ids, _inert(1))
    lengths = np.linalg.norm(found["state_01"], axis=-1, keepdims=True)
    assert np.abs(found["state_01"] @ directions.T / lengths).max() < 1e-4
    np.testing.assert_array_equal(found["state_00"], plain["state_00"])
    with (
        _projected(llama.architecture.blocks[0], torch.from_numpy(directions)),
        recording(llama.architecture.blocks) as seen,
        eager(llama.architecture.model),
        torch.inference_mode(),
    ):
        made = llama.causal(torch.from_numpy(ids))
    np.testing.assert_allclose(found["state_01"], seen.states[1].numpy(), atol=LIMIT)
    np.testing.assert_allclose(found["logits"], made.logits[:, -1].numpy(), atol=LIMIT)
    assert np.abs(found["logits"] - plain["logits"]).max() > 0.1


def test_a_cut_keeps_the_first_blocks_and_no_head(llama: Graph, tmp_path: Path) -> None:
    """Logits, final norm, and the caches of the blocks above are gone from outputs and inputs."""
    cut = Graph(llama.causal, write(part_of(llama.causal, layers=1), tmp_path))
    ids = np.random.default_rng(0).integers(0, VOCABULARY, (2, 7))
    outputs = cut.read(ids, _inert(1)[:1])
    assert set(outputs) == {"state_00", "state_01", "key_00", "value_00"}
    whole = llama.read(ids, _inert(1))
    for name, value in outputs.items():
        np.testing.assert_array_equal(value, whole[name], err_msg=name)


def test_the_past_is_read_where_it_lies(llama: Graph, tmp_path: Path) -> None:
    """No node but a product takes the keys or values of the past, once the graph is optimised."""
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
def test_a_model_that_cannot_have_one_is_told_why(model: Callable[[], Any], words: str) -> None:
    """Before it is traced: the message names what it lacks, and the option that goes without."""
    with pytest.raises(ExportError, match=words) as caught:
        part_of(model().eval())
    assert "--decode no" in str(caught.value)


@pytest.mark.parametrize("settings", [{}, {"softcap": 1.5}, {"sinks": True}, {"scaling": 0.3}])
def test_attention_in_parts_is_attention(settings: dict[str, Any]) -> None:
    """Grouped queries over two parts of a cache against the formula in float64, masks included."""
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
    given = {name: value for name, value in settings.items() if name != "sinks"}
    if "sinks" in settings:
        given["s_aux"] = torch.from_numpy(sinks)
    parts = [(tensors[1][:, :, part], tensors[2][:, :, part]) for part in (slice(4), slice(4, 7))]
    found = attend(tensors[0], parts, torch.from_numpy(allowed), given)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


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
        return replaced(output, (first(output).double() @ rest).float())

    with ExitStack() as held:
        held.callback(block.register_forward_hook(hook).remove)
        yield
