"""What do the states cost in the graph? Pooled and whole-state exports against the bare backbone.

All three are traced from the same model by the same exporter; the bare one has the backbone's own
last hidden state as its only output. ONNX Runtime, same session options.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from layerguard.exporter.graph.score import ScoreModule
from layerguard.exporter.graph.spec import GraphSpec, text_inputs
from layerguard.exporter.graph.weights import SharedWeights
from layerguard.exporter.loading.architecture import examine
from layerguard.exporter.loading.checkpoint import load
from layerguard.exporter.loading.source import ModelSource
from layerguard.exporter.pipeline import write_graph
from layerguard.exporter.proof.reference import References
from layerguard.exporter.proof.score import compare
from layerguard.runtime.bundle.manifest import OutputCard
from layerguard.runtime.model.session import Session
from tests.bench.harness import measure, report
from tests.bench.minilm import CACHE, exported, model_folder

_TOKENS = (32, 128, 512)
_GOALS = {"pooled": 1.02, "states": 1.05}


def main() -> None:
    sessions = {
        "bare": Session(_bare()),
        "pooled": Session(exported() / "score.onnx"),
        "states": Session(exported("--mode", "states") / "score.onnx"),
    }
    rows: list[dict[str, Any]] = []
    for tokens in _TOKENS:
        ids = np.random.default_rng(0).integers(1000, 2000, (1, tokens))
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        calls = {
            name: partial(session.run, session.outputs, feeds) for name, session in sessions.items()
        }
        seconds = measure(calls, rounds=101)
        for name, goal in _GOALS.items():
            rows.append(
                {
                    "tokens": tokens,
                    "graph": name,
                    "ms": seconds[name] * 1e3,
                    "bare ms": seconds["bare"] * 1e3,
                    "ratio": seconds[name] / seconds["bare"],
                    "goal": f"<= {goal}",
                }
            )
    report("graph", "Cost of the states in the graph, all-MiniLM-L6-v2, batch 1", rows)


def _bare() -> Path:
    """The backbone with only its own last hidden state as output."""
    folder = CACHE / "minilm-bare"
    path = folder / "score.onnx"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        architecture = examine(load(ModelSource(str(model_folder()))).model)
        output = OutputCard("state_last", "final_norm", architecture.layers)
        references = References(architecture)
        unproved = partial(compare, batches=[], references=references, outputs=[output])
        module = ScoreModule(architecture, [output])
        spec = GraphSpec("states", module, text_inputs(), (output,), unproved)
        write_graph(spec, folder, path.name, SharedWeights(folder))
    return path


if __name__ == "__main__":
    main()
