"""Toy bundles and rows that a clean environment tries the commands on.

    python -m tests.wheel.toys FOLDER

Runs in the developers' environment: what it writes is all that the clean one gets.
"""

import json
import sys
from pathlib import Path

from layerguard.runtime import Bundle
from layerguard.runtime.bundle.signing import sign
from layerguard.runtime.packing import pack
from tests import drift_monitors, keys, tiny, tiny_analysis, tiny_decoder
from tests.calibration import checkpoints, synthetic
from tests.peers import siren_heads


def write(folder: Path) -> None:
    """Everything, each under its name."""
    encoder = tiny.make_bundle(folder / "encoder")
    tiny_decoder.make_bundle(folder / "decoder")
    tiny_analysis.make_traceable(folder / "traceable")
    base = drift_monitors.make_base(folder / "drift-base")
    drift_monitors.make_checkpoint(base, folder / "checkpoint", 0.6)
    drift_monitors.make_monitor(folder / "monitor", base)
    before = checkpoints.llama_weights(seed=0)
    moved = {name: array + 0.1 * len(name) for name, array in before.items()}
    checkpoints.save_model(folder / "base", before)
    checkpoints.save_model(folder / "tuned", moved)
    blocks = tuple(range(tiny.LAYERS))
    config, tensors = siren_heads.content_head("toy", blocks=blocks, width=tiny.WIDTH)
    config["inference"]["max_length"] = Bundle.load(encoder).manifest.text.max_tokens
    siren_heads.write_head(folder / "head", config, tensors)
    rows = [{"text": text} for text in synthetic.sentences(120, seed=3)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    private, _ = keys.make_keys(folder, "ours")
    keys.make_keys(folder, "theirs")
    signed = tiny.make_bundle(folder / "signed")
    sign(signed, private)
    pack(signed, "acme-guard", "1.2.0", folder)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
