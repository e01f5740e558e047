"""How much memory does a serving process take, and how long does it import and load?

Each figure comes from a process of its own: the calibrated MiniLM bundle, fifty checks of texts up
to the model's window, then the process's own high-water mark. Beside it the same texts through
PyTorch and transformers.
"""

import json
import statistics
import subprocess
import sys

from tests.bench.harness import report
from tests.bench.minilm import calibrated, model_folder

_RUNS = 3

_HEAD = """
import json, sys, time
def peak():
    return int(next(l.split()[1] for l in open("/proc/self/status") if l.startswith("VmHWM")))
texts = [" ".join(["garden"] * (1 + 10 * i)) for i in range(50)]
start = time.perf_counter()
"""
_OURS = (
    _HEAD
    + """
from layerguard.runtime import Guard
imported = time.perf_counter()
guard = Guard.load(sys.argv[1])
loaded = time.perf_counter()
for text in texts:
    guard.check(text)
print(json.dumps([imported - start, loaded - imported, peak() / 1024]))
"""
)
_TORCH = (
    _HEAD
    + """
import torch
from transformers import AutoModel, AutoTokenizer
imported = time.perf_counter()
model = AutoModel.from_pretrained(sys.argv[1]).eval()
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
loaded = time.perf_counter()
with torch.inference_mode():
    for text in texts:
        model(**tokenizer(text, return_tensors="pt", truncation=True), output_hidden_states=True)
print(json.dumps([imported - start, loaded - imported, peak() / 1024]))
"""
)


def main() -> None:
    bundle, model = calibrated(), model_folder()
    rows = []
    for name, source, argument in (
        ("layerguard", _OURS, bundle),
        ("PyTorch, transformers", _TORCH, model),
    ):
        runs = []
        for _ in range(_RUNS):
            done = subprocess.run(
                [sys.executable, "-c", source, str(argument)],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            runs.append(json.loads(done.stdout))
        imported, loaded, peak = (statistics.median(values) for values in zip(*runs, strict=True))
        rows.append({"process": name, "import s": imported, "load s": loaded, "peak MB": peak})
    rows.append(
        {
            "process": "ratio",
            **{key: rows[1][key] / rows[0][key] for key in ("import s", "load s", "peak MB")},
        }
    )
    report("footprint", "Memory, import and load of a process that serves MiniLM", rows)


if __name__ == "__main__":
    main()
