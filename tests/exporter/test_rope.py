"""Rotary frequencies that change with the length of a text: a row's answer is its own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from layerguard.exporter import export
from layerguard.exporter.graph.convert import trace
from layerguard.exporter.graph.decode import decode_part
from layerguard.exporter.graph.part import Part
from layerguard.exporter.graph.rope import rows_apart
from layerguard.exporter.graph.score import score_part
from layerguard.exporter.loading.architecture import Architecture, examine
from layerguard.exporter.loading.checkpoint import Loaded
from layerguard.exporter.pipeline import Exported
from layerguard.exporter.proof.reference import References
from layerguard.exporter.proof.score import make_cases
from layerguard.runtime import Guard
from layerguard.runtime.errors import ExportError
from tests.exporter.models import build, build_causal, save_model
from tests.exporter.test_decode import InPyTorch
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
"""Of a Phi-3 that takes 64 tokens."""
DYNAMIC: dict[str, Any] = {
    "num_hidden_layers": 1,
    "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0},
}
SAME = 1e-4


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Exported, Path]:
    """A Phi-3 with longrope, exported with the defaults, and its bundle with detectors."""
    folder = tmp_path_factory.mktemp("longrope")
    model = save_model(folder / "model", "phi3", head=True, **LONGROPE)
    found = export(str(model), folder / "bare")
    params = make_params(BLOCKS, found.manifest.model.width)
    return found, freeze(folder / "bare", folder / "bundle", params)


def _text(tokens: int, start: int = 0) -> str:
    """A text of so many tokens, ``<s>`` among them."""
    return " ".join(f"w{(start + 7 * i) % 90}" for i in range(tokens - 1))


TEXTS = [_text(n, n) for n in (5, SWITCH - 1, SWITCH, SWITCH + 1, 40, 60)]


def _scores(verdict: Any) -> dict[str, float]:
    return {name: reading.score for name, reading in verdict.readings.items()}


def test_check_and_check_batch_agree_on_both_sides_of_the_switch(
    exported: tuple[Exported, Path],
) -> None:
    """A short text beside longer ones gives the scores that it gives alone."""
    guard = Guard.load(exported[1], threads=1)
    alone = [guard.check(text) for text in TEXTS]
    assert [verdict.tokens for verdict in alone] == [5, 23, 24, 25, 40, 60]
    for together, single in zip(guard.check_batch(TEXTS), alone, strict=True):
        assert _scores(together) == pytest.approx(_scores(single), rel=SAME)


def test_a_stream_across_the_switch_agrees_with_check(exported: tuple[Exported, Path]) -> None:
    """Without a decode graph a stream reads anew, and with the frequencies of the whole."""
    guard = Guard.load(exported[1], threads=1)
    words = _text(40).split()
    with guard.stream(prompt=words[0], stride=1) as stream:
        for end in range(2, len(words) + 1):
            verdict = stream.push(f" {words[end - 1]}")
            if end in (SWITCH - 2, SWITCH - 1, SWITCH, len(words)):
                whole = guard.check(prompt=words[0], response=" " + " ".join(words[1:end]))
                assert verdict.unread_tokens == 0
                assert _scores(verdict) == pytest.approx(_scores(whole), rel=SAME)


def test_the_proof_covers_both_sides_of_the_switch(exported: tuple[Exported, Path]) -> None:
    """One batch has a row of either set of frequencies, though the model takes many tokens."""
    assert exported[0].proofs["score"].shapes == 9
    assert max(exported[0].proofs["score"].largest.values()) <= SAME
    architecture = examine(build("phi3", **LONGROPE))
    assert architecture.rope_switch == SWITCH
    lengths = make_cases(architecture, 0)[-1].attention_mask.sum(1)
    assert lengths[0] == SWITCH + 1
    assert lengths[1] <= SWITCH
    assert architecture.within(SWITCH + 1).rope_switch == SWITCH
    assert architecture.within(SWITCH).rope_switch is None
    assert examine(build("llama")).rope_switch is None


def test_a_decode_graph_across_the_switch_is_refused(exported: tuple[Exported, Path]) -> None:
    """The cache of a short text holds keys that a longer text does not have."""
    assert set(exported[0].manifest.graphs) == {"score"}
    for word in ("24 tokens", "longrope", "--max-tokens 24", "--decode no"):
        assert word in exported[0].skipped["decode"]
    causal = build_causal("phi3", **LONGROPE)
    loaded = Loaded(causal.base_model, causal, "0" * 40, frozenset())
    with pytest.raises(ExportError, match="one set of them"):
        _decode_part(loaded, examine(causal.base_model))


def test_a_decode_graph_within_the_switch_is_the_model() -> None:
    """A window of no more than the short frequencies' length has a decode graph."""
    causal = build_causal("phi3", **LONGROPE)
    loaded = Loaded(causal.base_model, causal, "0" * 40, frozenset())
    architecture = examine(causal.base_model).within(SWITCH)
    part = _decode_part(loaded, architecture)
    assert max(part.prove(InPyTorch(part)).largest.values()) <= SAME


def _decode_part(loaded: Loaded, architecture: Architecture) -> Part:
    references = References(architecture, loaded.causal)
    return decode_part(loaded, architecture, BLOCKS, "float32", 0, references)


def _last_states(model: Any, lengths: Sequence[int]) -> list[torch.Tensor]:
    """Of rows of those lengths in one batch, each row's states."""
    longest = max(lengths)
    ids = torch.arange(3, 3 + longest).repeat(len(lengths), 1)
    mask = torch.stack([(torch.arange(longest) < n).long() for n in lengths])
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.inference_mode():
        found = model(input_ids=ids, attention_mask=mask, position_ids=positions)
    return [found.last_hidden_state[row, :n] for row, n in enumerate(lengths)]


def test_rows_are_apart_and_the_model_is_left_as_it_was() -> None:
    """Transformers lets a long row change a short one; within the block it does not."""
    model = build("phi3", **LONGROPE)
    (alone,) = _last_states(model, [6])
    mixed, _ = _last_states(model, [6, 40])
    assert (mixed - alone).abs().max() > 0.05
    (long_alone,) = _last_states(model, [40])
    with rows_apart(model):
        short, long = _last_states(model, [6, 40])
    torch.testing.assert_close(short, alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(long, long_alone, atol=1e-5, rtol=1e-5)
    assert torch.equal(_last_states(model, [6, 40])[0], mixed)


def test_dynamic_frequencies_are_those_of_rows_within_the_models_limit() -> None:
    """They change beyond ``max_position_embeddings`` alone, which no row exceeds."""
    model = build("llama", **DYNAMIC)
    architecture = examine(model)
    part = score_part(architecture, "pooled", 1, 0, References(architecture))
    with rows_apart(model):
        assert model.rotary_emb.rope_type == "default"
        found = part.prove(InPyTorch(part))
    assert max(found.largest.values()) <= SAME
    assert model.rotary_emb.rope_type == "dynamic"
    trace(part)
