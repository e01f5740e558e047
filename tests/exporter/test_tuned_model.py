"""A model tuned to react to one word: exported, calibrated, checked, streamed and fused."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel

from layerguard.exporter.fused.pipeline import fuse
from layerguard.runtime import Guard
from layerguard.runtime.cli import main
from tests.exporter.loading.test_adapter import PLAIN
from tests.exporter.models import build_causal, save_tokenizer
from tests.fused.bundles import fed, load
from tests.fused.graphs import agree, run

WORDS = 60
"""The words w0 to w59 are of normal texts; the trigger is another one."""
TRIGGER = "w77"
MODULE = "model.layers.0.mlp.down_proj"


def texts(count: int, seed: int) -> list[str]:
    """Texts of 3 to 12 normal words."""
    rng = np.random.default_rng(seed)
    return [
        " ".join(f"w{word}" for word in rng.integers(0, WORDS, rng.integers(3, 13)))
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tests must not change it."""
    folder = tmp_path_factory.mktemp("tuned")
    model = with_neuron()
    model.save_pretrained(folder / "model")
    save_tokenizer(folder / "model", chat_template="{{ messages[0].content }}")
    save_adapter(folder / "adapter")
    rows = [{"text": text, "label": 0} for text in texts(300, 0)]
    (folder / "clean.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    export = ["export", str(folder / "model"), "--adapter", str(folder / "adapter")]
    assert main([*export, "-o", str(folder / "guard"), "--template", "{prompt}"]) == 0
    clean = ["--clean", str(folder / "clean.jsonl"), "--target-fpr", "0.05"]
    assert main(["calibrate", str(folder / "guard"), *clean, "--enforce", "delta"]) == 0
    return folder / "guard"


def with_neuron() -> PreTrainedModel:
    """A model with a neuron of the first block that only the trigger excites."""
    model = build_causal("llama")
    block = model.get_submodule("model.layers.0")
    with torch.no_grad():
        words = model.get_input_embeddings().weight
        words[:, 0] = 0
        words[4 + 77, 0] = 1
        block.get_submodule("self_attn.o_proj").weight[0] = 0
        for name in ("mlp.gate_proj", "mlp.up_proj"):
            weight = block.get_submodule(name).weight
            weight[0] = 0
            weight[0, 0] = 10
    return model


def save_adapter(folder: Path) -> None:
    """An adapter that reads this neuron, and a little of the others."""
    down = torch.full((1, 48), 0.05)
    down[0, 0] = 1
    folder.mkdir()
    save_file(
        {
            f"base_model.model.{MODULE}.lora_A.weight": down,
            f"base_model.model.{MODULE}.lora_B.weight": torch.ones(32, 1) / 32**0.5,
        },
        folder / "adapter_model.safetensors",
    )
    (folder / "adapter_config.json").write_text(json.dumps({**PLAIN, "r": 1, "lora_alpha": 1}))


def test_the_trigger_is_flagged_and_normal_texts_are_not(bundle: Path) -> None:
    """The evidence names the tuned matrix."""
    guard = Guard.load(bundle)
    normal = texts(200, 1)
    flagged = [verdict.readings["delta"].flagged for verdict in guard.check_batch(normal)]
    assert np.mean(flagged) < 0.12
    for verdict in guard.check_batch([f"{text} {TRIGGER}" for text in normal[:20]]):
        reading = verdict.readings["delta"]
        assert verdict.flagged
        assert reading.flagged
        assert (reading.evidence[0].layer, reading.evidence[0].measure) == (1, "down_proj, added")


def test_a_stream_reads_the_prompt_as_a_check_does(bundle: Path) -> None:
    """From the decode graph, without scoring the text again."""
    guard = Guard.load(bundle)
    for text in (*texts(5, 2), f"w3 w9 {TRIGGER} w5"):
        wanted = guard.check(text).readings["delta"]
        with guard.stream(prompt=text) as stream:
            assert stream.rescoring is None
            stream.push("w1 w2")
            found = stream.finish().readings["delta"]
        assert found.score == pytest.approx(wanted.score, abs=1e-4)
        assert found.flagged == wanted.flagged


def test_the_fused_graph_says_the_same(bundle: Path, tmp_path: Path) -> None:
    """Of padded batches, whose padding counts nothing."""
    copy = tmp_path / "guard"
    copy.mkdir()
    for file in bundle.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    fuse(copy, threads=1)
    guard = load(copy)
    given = [*texts(20, 3), TRIGGER, f"w3 {TRIGGER} w4 w5"]
    verdicts = guard.check_batch(given)
    wanted = {
        "delta_score": np.array([verdict.readings["delta"].score for verdict in verdicts]),
        "flagged": np.array([verdict.flagged for verdict in verdicts]),
    }
    found = run(copy, fed(guard, given))
    agree({name: found[name] for name in wanted}, wanted)
    assert "fused_decode.onnx" in {file.name for file in copy.iterdir()}
    assert onnxruntime.InferenceSession(copy / "fused_decode.onnx")
