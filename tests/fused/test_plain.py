"""A fused graph needs only ONNX Runtime and the tokenizer."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from layerguard.exporter.fused.pipeline import fuse
from tests.fused.bundles import FRESH, calibrated, expected, load
from tests.fused.graphs import agree

_PLAIN = Path(__file__).with_name("plain.py")


def test_a_service_without_layerguard_gives_its_verdicts(tmp_path: Path) -> None:
    """A hundred texts are tokenized and scored in a process without LayerGuard."""
    path = calibrated(tmp_path / "bundle")
    fuse(path, threads=1)
    texts = tmp_path / "texts.json"
    texts.write_text(json.dumps(FRESH), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-I", str(_PLAIN), str(path), str(texts)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["strangers"] == []
    names = said["answers"][0]
    found = {name: np.array([answer[name] for answer in said["answers"]]) for name in names}
    agree(found, expected(load(path), FRESH))


def test_fusing_loads_no_pytorch() -> None:
    """The command needs onnx but not the other packages that export needs."""
    code = (
        "import sys, layerguard.exporter.fused.command;"
        "print(sorted({'torch', 'transformers', 'optimum', 'onnxscript', 'safetensors'}"
        ".intersection(sys.modules)), 'onnx' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "True"]
