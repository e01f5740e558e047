"""How well does a calibrated bundle do on four public safety sets?

    python -m tests.bench.safety_sets

Makes the splits from ../shared/data, then runs ``layerguard export``, ``calibrate`` and ``eval`` as
commands. ToxicChat and WildGuard come with train and test parts; OpenAI moderation is divided 60 %
training, 20 % validation, 20 % test, and BeaverTails in halves, both by prompt and seed. Every
choice (probes, neurons, network settings, threshold) is made by cross-validation on training and
validation rows; ``calibrate --test`` drops those whose text a test file holds.
"""

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from layerguard.calibration.rows.leakage import normalised
from layerguard.runtime import Bundle
from tests.bench.harness import REPOSITORY, report
from tests.bench.minilm import CACHE, model_folder

DATA = REPOSITORY.parent / "shared" / "data"
FOLDER = CACHE / "safety-sets"
SEED = 0
AIMS = {"toxicchat": 80.0, "openai_moderation": 77.0, "wildguard": 79.0, "beavertails": 75.0}
"""Macro-F1 at 0.5 on the test part, per cent."""

Row = dict[str, Any]


def main() -> int:
    """Print the table, and each set's macro-F1 beside its aim; 1 where one is missed."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    train, test = write_splits()
    clean = write(FOLDER / "clean.jsonl", map(contract, read("benign_alpaca")))
    bundle = FOLDER / "bundle"
    layerguard("export", str(model_folder()), "-o", str(bundle), "--id", "all-MiniLM-L6-v2")
    layerguard(
        "calibrate", str(bundle), "--clean", str(clean), "--labelled", *map(str, train),
        "--test", *map(str, test), "--target-fpr", "0.01", "--seed", str(SEED),
    )  # fmt: skip
    evaluation = ["eval", str(bundle), *map(str, test), "--train", *map(str, train)]
    lines = layerguard(*evaluation, "--json", "--report", str(FOLDER / "report.html"), quiet=True)
    results = [json.loads(line) for line in lines.splitlines()]
    settings = Bundle.load(bundle).manifest.detectors["siren"].settings
    report("safety_sets", f"Four safety sets; SIREN {json.dumps(settings)}", _table(results))
    return _compare(results)


def write_splits() -> tuple[list[Path], list[Path]]:
    """Contract rows of the four sets in train and test files."""
    openai, beaver = read("siren_openai_moderation"), read("siren_beavertails_30k_test")
    parts = {
        "toxicchat": (read("siren_toxicchat_train"), read("siren_toxicchat_test")),
        "openai_moderation": _by_prompt(openai, test_share=0.2),
        "wildguard": (read("siren_wildguard_train"), read("siren_wildguard_test")),
        "beavertails": _by_prompt(beaver, test_share=0.5),
    }
    files: tuple[list[Path], list[Path]] = ([], [])
    for name, halves in parts.items():
        for part, rows, written in zip(("train", "test"), halves, files, strict=True):
            written.append(write(FOLDER / f"{name}-{part}.jsonl", map(contract, rows)))
    return files


def layerguard(*arguments: str, quiet: bool = False) -> str:
    """Run the command line in a process of its own; its output, shown unless ``quiet``."""
    print(f"\n$ layerguard {' '.join(Path(a).name for a in arguments)}", flush=True)
    command = [sys.executable, "-m", "layerguard.runtime.cli", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    if not quiet:
        print(done.stdout, flush=True)
    return done.stdout


def _by_prompt(rows: Sequence[Row], test_share: float) -> tuple[list[Row], list[Row]]:
    """Train and test rows that share no prompt."""
    prompts = sorted({normalised(row["text"]) for row in rows})
    order = np.random.default_rng(SEED).permutation(len(prompts))
    chosen = {prompts[i] for i in order[: round(test_share * len(prompts))]}
    inside = [normalised(row["text"]) in chosen for row in rows]
    pairs = list(zip(rows, inside, strict=True))
    return [row for row, test in pairs if not test], [row for row, test in pairs if test]


def contract(row: Row) -> Row:
    """A row as the command line takes it: the text, or prompt and response where it judges both."""
    known = {"id": row["id"], "label": row["label"], "domain": row["source"]}
    if row["kind"] == "response":
        return {**known, "prompt": row["text"], "response": row["response"]}
    return {**known, "text": row["text"]}


def read(name: str) -> list[Row]:
    """The rows of a data set."""
    with (DATA / f"{name}.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def write(path: Path, rows: Iterable[Row]) -> Path:
    """The file, a row a line."""
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def _table(results: Sequence[Row]) -> list[Row]:
    """A row a method and file: AUROC as a share, everything else per cent."""
    return [
        {
            "file": result["file"],
            "n": result["n"],
            "harmful": result["positives"],
            **{
                name: value if name in ("method", "auroc") or value is None else 100 * value
                for name, value in line.items()
            },
        }
        for result in results
        for line in result["figures"]
    ]


def _compare(results: Sequence[Row]) -> int:
    missed = 0
    for result in results:
        name = result["file"].removesuffix("-test")
        found = next(line for line in result["figures"] if line["method"] == "siren")
        score = 100 * found["macro_f1_at_half"]
        missed += score < AIMS[name]
        word = "missed" if score < AIMS[name] else "reached"
        print(f"{name:<18} macro-F1 at 0.5: {score:.1f}, aim {AIMS[name]:.0f}: {word}")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
