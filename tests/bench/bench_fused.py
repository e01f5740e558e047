"""What do detectors and decision cost inside the graph? The fused graph against the bare backbone.

MiniLM with LCF and SIREN as calibrated, which read the same row; and a Llama of 100 million random
parameters with LCF, SIREN and WeightWatch of random parameters, the same row for all three. The
bare graphs are traced from the same models by the same exporter; their only output is the
backbone's own last hidden state. ONNX Runtime, same session options, one row.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

from layerguard.exporter.fused.pipeline import fuse
from layerguard.exporter.graph.score import ScoreModule
from layerguard.exporter.graph.spec import GraphSpec, text_inputs
from layerguard.exporter.graph.weights import SharedWeights
from layerguard.exporter.loading.architecture import examine
from layerguard.exporter.loading.checkpoint import load
from layerguard.exporter.loading.source import ModelSource
from layerguard.exporter.pipeline import write_graph
from layerguard.exporter.proof.reference import References
from layerguard.exporter.proof.score import compare
from layerguard.runtime import Bundle
from layerguard.runtime.bundle.manifest import OutputCard
from layerguard.runtime.model.session import Session
from tests.bench.harness import measure, report
from tests.bench.minilm import CACHE, calibrated, model_folder, run_command
from tests.random_detectors import freeze, make_params

_TOKENS = (32, 128, 512)
_GOAL = 1.02
_ROUNDS = {"MiniLM": 101, "Llama 100M": 21}


def main() -> None:
    made = {
        "MiniLM": (model_folder(), _fused(calibrated())),
        "Llama 100M": (_llama(), _fused(_guarded_llama())),
    }
    rows: list[dict[str, Any]] = []
    for name, (model, bundle) in made.items():
        bare, fused = Session(_bare(name, model)), Session(bundle / "fused.onnx")
        card = Bundle.load(bundle).manifest.fused["score"]
        for tokens in _TOKENS:
            ids = np.random.default_rng(0).integers(1000, 2000, (1, tokens))
            feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
            columns = 1 + max(card.columns.values(), default=0)
            more = {"rows": np.zeros((1, columns), np.int64), "roles": np.ones_like(ids)}
            given = {key: (feeds | more)[key] for key in card.inputs}
            seconds = measure(
                {
                    "bare": partial(bare.run, bare.outputs, feeds),
                    "fused": partial(fused.run, card.outputs, given),
                },
                rounds=_ROUNDS[name],
            )
            rows.append(
                {
                    "model": name,
                    "detectors": ", ".join(card.thresholds),
                    "tokens": tokens,
                    "fused ms": seconds["fused"] * 1e3,
                    "bare ms": seconds["bare"] * 1e3,
                    "ratio": seconds["fused"] / seconds["bare"],
                    "goal": f"<= {_GOAL}" if tokens == 128 else None,
                }
            )
    report("fused", "Cost of detectors and decision inside the graph, batch 1", rows)


def _fused(bundle: Path) -> Path:
    if "score" not in Bundle.load(bundle).manifest.fused:
        fuse(bundle)
    return bundle


def _bare(name: str, model: Path) -> Path:
    """The backbone with only its own last hidden state as output."""
    folder = CACHE / f"{name.replace(' ', '-').lower()}-bare"
    path = folder / "score.onnx"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        architecture = examine(load(ModelSource(str(model))).model)
        output = OutputCard("state_last", "final_norm", architecture.layers)
        references = References(architecture)
        unproved = partial(compare, batches=[], references=references, outputs=[output])
        module = ScoreModule(architecture, [output])
        spec = GraphSpec("states", module, text_inputs(), (output,), unproved)
        write_graph(spec, folder, path.name, SharedWeights(folder))
    return path


def _llama() -> Path:
    """A Llama of twelve blocks of width 768 with random weights, and a tokenizer of words."""
    folder = CACHE / "llama-100m"
    if not (folder / "config.json").is_file():
        torch.manual_seed(0)
        config = LlamaConfig(
            hidden_size=768, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=12,
            num_key_value_heads=12, vocab_size=16_000, max_position_embeddings=1024,
            architectures=["LlamaModel"],
        )  # fmt: skip
        LlamaModel(config).save_pretrained(folder)
        words = {"<unk>": 0} | {f"w{i}": i for i in range(1, config.vocab_size)}
        tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            unk_token="<unk>",
            pad_token="<unk>",
        ).save_pretrained(folder)
    return folder


def _guarded_llama() -> Path:
    bundle, exported = CACHE / "llama-100m-guarded", CACHE / "llama-100m-exported"
    if not (bundle / "manifest.json").is_file():
        if not (exported / "manifest.json").is_file():
            run_command("export", str(_llama()), "-o", str(exported), "--decode", "no")
        params = make_params(12, 768)
        reach = np.array([[0.9], [1.0], [1.1], [1.2]], np.float32)  # so that roles are read
        for name in ("low", "high"):
            params["weightwatch"][name] = params["weightwatch"][name] * reach
        freeze(exported, bundle, params)
    return bundle


if __name__ == "__main__":
    main()
