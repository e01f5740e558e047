"""Write a bundle of today's format and the verdicts that today's guard gives.

    python -m tests.old_bundles.make NAME

Run it once for each new format, on the release that introduced it, and commit the folder that it
writes beside this file. ``test_old_bundles.py`` then loads that bundle with every later release.
Never write an old folder again: its worth is that an old release wrote it.
"""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from layerguard.runtime import Guard
from layerguard.runtime.cli import main as layerguard
from tests.calibration.synthetic import write_rows
from tests.exporter.models import VOCABULARY, build_causal, save_tokenizer
from tests.old_bundles.requests import REQUESTS, figures

HERE = Path(__file__).parent
_TEMPLATE = (
    "{% for m in messages %}w10 {{ m['role'] }} w11 {{ m['content'] }} w12 {% endfor %}"
    "{% if add_generation_prompt %}w10 assistant w11 {% endif %}"
)
_SPECIAL = 4
"""Tokens of the tokenizer that are not words."""


def main(name: str) -> None:
    """Export, calibrate and fuse the bundle ``name``, then note its verdicts."""
    out = HERE / name
    if out.exists():
        raise SystemExit(f"{out} exists, and an old bundle is never written again: give a new name")
    with TemporaryDirectory() as folder:
        work = Path(folder)
        base, tuned = _save_models(work)
        clean, labelled = _save_rows(work)
        bundle = str(out / "bundle")
        out.mkdir()
        calls = (
            ("export", str(base), "-o", bundle, "--id", "toy", "--analysis"),
            ("calibrate", bundle, "--clean", clean, "--labelled", labelled, "--base", str(base),
             "--tuned", str(tuned), "--target-fpr", "0.1", "--threads", "1"),
            ("fuse", bundle),
        )  # fmt: skip
        for call in calls:
            if layerguard(call) != 0:
                raise SystemExit(f"layerguard {call[0]} failed")
    guard = Guard.load(bundle)
    answers = {key: figures(guard.check(**request)) for key, request in REQUESTS.items()}
    text = json.dumps(answers, indent=1, sort_keys=True)
    (out / "answers.json").write_text(f"{text}\n", encoding="utf-8")


def _save_models(work: Path) -> tuple[Path, Path]:
    """A random Llama of a few kilobytes, and one whose blocks also write a further direction."""
    base, tuned = work / "base", work / "tuned"
    model = build_causal("llama")
    for folder in (base, tuned):
        model.save_pretrained(folder)
        save_tokenizer(folder, chat_template=_TEMPLATE)
        with torch.no_grad():
            for block in model.base_model.layers:
                weight = block.mlp.down_proj.weight
                weight += torch.outer(torch.randn(len(weight)), torch.randn(weight.shape[1])) / 3
    return base, tuned


def _save_rows(work: Path) -> tuple[str, str]:
    """Clean rows of two domains; labelled rows, of which the harmful share their first words."""
    rng = np.random.default_rng(0)

    def words(count: int) -> str:
        drawn = rng.integers(20, VOCABULARY - _SPECIAL, count)
        return " ".join(f"w{word}" for word in drawn)

    clean = [
        {"text": words(int(rng.integers(3, 12))), "domain": ("chat", "mail")[row % 2]}
        for row in range(160)
    ]
    labelled = [
        {"text": f"{'w15 w16 w17 ' * (row % 2)}{words(6)}", "label": row % 2} for row in range(120)
    ]
    return (
        str(write_rows(work / "clean.jsonl", clean)),
        str(write_rows(work / "labelled.jsonl", labelled)),
    )


if __name__ == "__main__":
    main(sys.argv[1])
