"""Rotary frequencies that depend on the length of a text: rows do not affect each other."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from layerguard.exporter import export
from layerguard.exporter.graph.convert import trace
from layerguard.exporter.graph.decode import decode_graph
from layerguard.exporter.graph.rope import per_row_frequencies
from layerguard.exporter.graph.score import score_graph
from layerguard.exporter.graph.spec import GraphSpec
from layerguard.exporter.loading.architecture import Architecture, examine
from layerguard.exporter.loading.checkpoint import LoadedModel
from layerguard.exporter.pipeline import Exported
from layerguard.exporter.proof.reference import References
from layerguard.exporter.proof.score import make_batches
from layerguard.runtime import Guard
from layerguard.runtime.errors import ExportError
from tests.exporter.in_pytorch import InPyTorch
from tests.exporter.models import build, build_causal, save_model
from tests.random_detectors import freeze, make_params

SWITCH, BLOCKS = 24, 2
LONGROPE: dict[str, Any] = {
    "num_hidden_layers": BLOCKS,
    "original_max_position_embeddings": SWITCH,
    "rope_parameters": {
        "rope_type": "longrope", "rope_theta": 10_000.0, "short_factor": [1.0] * 4,
        "long_factor": [4.0, 8.0, 16.0, 32.0],
    },
}  # fmt: skip
"""Configuration of a Phi-3 with at most 64 tokens."""
DYNAMIC: dict[str, Any] = {
    "num_hidden_layers": 1,
    "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0},
}
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Exported, Path]:
    """A Phi-3 with longrope, exported with the default options, and a bundle with detectors."""
    folder = tmp_path_factory.mktemp("longrope")
    model = save_model(folder / "model", "phi3", head=True, **LONGROPE)
    result = export(str(model), folder / "bare")
    params = make_params(BLOCKS, result.manifest.model.width)
    return result, freeze(folder / "bare", folder / "bundle", params)


def _text(tokens: int, start: int = 0) -> str:
    """A text with this number of tokens, including ``<s>``."""
    return " ".join(f"w{(start + 7 * i) % 90}" for i in range(tokens - 1))


TEXTS = [_text(n, n) for n in (5, SWITCH - 1, SWITCH, SWITCH + 1, 40, 60)]


def _scores(verdict: Any) -> dict[str, float]:
    return {name: reading.score for name, reading in verdict.readings.items()}


def test_check_and_check_batch_agree_on_both_sides_of_the_switch(
    exported: tuple[Exported, Path],
) -> None:
    """A short text has the same scores alone and in a batch with longer texts."""
    guard = Guard.load(exported[1], threads=1)
    alone = [guard.check(text) for text in TEXTS]
    assert [verdict.tokens for verdict in alone] == [5, 23, 24, 25, 40, 60]
    for together, single in zip(guard.check_batch(TEXTS), alone, strict=True):
        assert _scores(together) == pytest.approx(_scores(single), rel=TOLERANCE)


def test_a_stream_across_the_switch_agrees_with_check(exported: tuple[Exported, Path]) -> None:
    """Without a decode graph the stream reads the whole text again."""
    guard = Guard.load(exported[1], threads=1)
    words = _text(40).split()
    with guard.stream(prompt=words[0], stride=1) as stream:
        for end in range(2, len(words) + 1):
            verdict = stream.push(f" {words[end - 1]}")
            if end in (SWITCH - 2, SWITCH - 1, SWITCH, len(words)):
                whole = guard.check(prompt=words[0], response=" " + " ".join(words[1:end]))
                assert verdict.unread_tokens == 0
                assert _scores(verdict) == pytest.approx(_scores(whole), rel=TOLERANCE)


def test_the_export_check_covers_both_sides_of_the_switch(exported: tuple[Exported, Path]) -> None:
    """One batch has a row for each set of frequencies."""
    assert exported[0].proofs["score"].shapes == 9
    assert max(exported[0].proofs["score"].largest.values()) <= TOLERANCE
    architecture = examine(build("phi3", **LONGROPE))
    assert architecture.rope_switch == SWITCH
    lengths = make_batches(architecture, 0)[-1].attention_mask.sum(1)
    assert lengths[0] == SWITCH + 1
    assert lengths[1] <= SWITCH
    assert architecture.with_max_tokens(SWITCH + 1).rope_switch == SWITCH
    assert architecture.with_max_tokens(SWITCH).rope_switch is None
    assert examine(build("llama")).rope_switch is None


def test_a_decode_graph_across_the_switch_is_refused(exported: tuple[Exported, Path]) -> None:
    """The keys of a short text differ from those of a longer one."""
    assert set(exported[0].manifest.graphs) == {"score"}
    for word in ("24 tokens", "longrope", "--max-tokens 24", "--decode no"):
        assert word in exported[0].skipped["decode"]
    causal = build_causal("phi3", **LONGROPE)
    loaded = LoadedModel(causal.base_model, causal, "0" * 40, frozenset())
    with pytest.raises(ExportError, match="one set of frequencies"):
        _decode_graph(loaded, examine(causal.base_model))


def test_a_decode_graph_below_the_switch_equals_the_model() -> None:
    """If no row exceeds the length of the short set, there is a decode graph."""
    causal = build_causal("phi3", **LONGROPE)
    loaded = LoadedModel(causal.base_model, causal, "0" * 40, frozenset())
    architecture = examine(causal.base_model).with_max_tokens(SWITCH)
    spec = _decode_graph(loaded, architecture)
    assert max(spec.prove(InPyTorch(spec)).largest.values()) <= TOLERANCE


def _decode_graph(loaded: LoadedModel, architecture: Architecture) -> GraphSpec:
    references = References(architecture, loaded.causal)
    return decode_graph(loaded, architecture, BLOCKS, "float32", 0, references)


def _last_states(model: Any, lengths: Sequence[int]) -> list[torch.Tensor]:
    """The last states of each row, for rows of these lengths in one batch."""
    longest = max(lengths)
    ids = torch.arange(3, 3 + longest).repeat(len(lengths), 1)
    mask = torch.stack([(torch.arange(longest) < n).long() for n in lengths])
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.inference_mode():
        run = model(input_ids=ids, attention_mask=mask, position_ids=positions)
    return [run.last_hidden_state[row, :n] for row, n in enumerate(lengths)]


def test_rows_are_independent_and_the_model_is_restored() -> None:
    """In transformers a long row changes a short one; within the ``with`` block it does not."""
    model = build("phi3", **LONGROPE)
    (alone,) = _last_states(model, [6])
    mixed, _ = _last_states(model, [6, 40])
    assert (mixed - alone).abs().max() > 0.05
    (long_alone,) = _last_states(model, [40])
    with per_row_frequencies(model):
        short, long = _last_states(model, [6, 40])
    torch.testing.assert_close(short, alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(long, long_alone, atol=1e-5, rtol=1e-5)
    assert torch.equal(_last_states(model, [6, 40])[0], mixed)


def test_dynamic_frequencies_are_those_of_short_rows() -> None:
    """They change beyond ``max_position_embeddings`` only, which no row exceeds."""
    model = build("llama", **DYNAMIC)
    architecture = examine(model)
    spec = score_graph(architecture, "pooled", 1, 0, References(architecture))
    with per_row_frequencies(model):
        assert model.rotary_emb.rope_type == "default"
        proof = spec.prove(InPyTorch(spec))
    assert max(proof.largest.values()) <= TOLERANCE
    assert model.rotary_emb.rope_type == "dynamic"
    trace(spec)
