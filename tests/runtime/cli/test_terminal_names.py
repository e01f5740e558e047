"""Names, paths and texts from strangers are escaped, whatever command prints them."""

import ast
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layerguard.runtime.bundle.signing import sign
from layerguard.runtime.cli import COMMANDS, main
from layerguard.runtime.packing import pack
from tests import tiny_analysis, tiny_decoder
from tests.calibration import checkpoints
from tests.drift_monitors import make_base, make_checkpoint, make_monitor, make_runs, write_traits
from tests.exporter.models import save_model
from tests.keys import make_keys
from tests.peers.siren_heads import content_head, write_head
from tests.runtime.cli.test_terminal import HOSTILE, run
from tests.runtime.tamper import edit_manifest
from tests.tiny import WIDTH, make_bundle, make_params

ROOT = Path(__file__).parents[3]
_ESCAPED = r"a\x1b[2J"


_TARGET = ("--target-fpr", "0.2")


def _rows(folder: Path, count: int = 40) -> Path:
    """Rows with hostile ids, sources and domains, and a bad one, in a file of a hostile name."""
    words = ("garden", "river", "rain", "hills", "boats")
    lines = [
        {
            "id": HOSTILE, "source": HOSTILE, "domain": HOSTILE, "label": i % 2,
            "text": f"{words[i % 5]} {words[i // 5 % 5]} {i} {HOSTILE}",
        }
        for i in range(count)
    ]  # fmt: skip
    path = folder / f"{HOSTILE}.jsonl"
    path.write_text("\n".join(map(json.dumps, [*lines, {"text": 1, HOSTILE: HOSTILE}])))
    return path


def _bundle(folder: Path, params: Any = None) -> Path:
    """A bundle in a folder of a hostile name, of a model that has one too."""
    bundle = make_bundle(folder / HOSTILE, params)
    return edit_manifest(bundle, lambda value: value["model"].update(id=HOSTILE))


def _export(folder: Path) -> list[object]:
    model = save_model(folder / HOSTILE)
    return ["export", model, "-o", folder / f"{HOSTILE}-bundle", "--decode", "no"]


def _import_siren(folder: Path) -> list[object]:
    config, tensors = content_head(HOSTILE, blocks=(0, 1), width=WIDTH)
    config["inference"]["max_length"] = 12
    head = write_head(folder / f"{HOSTILE}-head", config, tensors)
    bundle = _bundle(folder, {})
    return ["import-siren", head, bundle, "--other-base", "--clean", _rows(folder), *_TARGET]


def _audit(folder: Path) -> list[object]:
    base = checkpoints.save_model(folder / "base", checkpoints.llama_weights())
    tuned = checkpoints.save_model(folder / HOSTILE, checkpoints.llama_weights(1))
    bundle = make_bundle(folder / "bundle", {}, mode="states")
    edit_manifest(bundle, lambda value: value["model"].update(id=HOSTILE))
    return ["audit", base, tuned, "--bundle", bundle, "--corpus", _rows(folder)]


def _drift_fit(folder: Path) -> list[object]:
    base = make_base(folder / "base", "[CLS]")
    runs = [
        {**row, "perturbation": row["perturbation"] + HOSTILE} for row in make_runs(base, folder)
    ]
    path = folder / f"{HOSTILE}.jsonl"
    path.write_text("\n".join(map(json.dumps, runs)))
    traits = write_traits(folder / "traits.yaml")
    out = folder / f"{HOSTILE}-monitor"
    return ["drift", "fit", base, "--runs", path, "--traits", traits, "-o", out]


def _drift_check(folder: Path) -> list[object]:
    base = make_base(folder / "base")
    monitor = make_monitor(folder / "monitor", base)
    checkpoint = make_checkpoint(base, folder / HOSTILE, 0.6)
    edit_manifest(checkpoint, lambda value: value["model"].update(id=HOSTILE))
    return ["drift", "check", monitor, checkpoint]


def _sign(folder: Path) -> list[object]:
    key, _ = make_keys(folder, "key")
    return ["sign", _bundle(folder), "--key", key]


def _verify(folder: Path) -> list[object]:
    key, public = make_keys(folder, "key")
    bundle = _bundle(folder)
    sign(bundle, key)
    return ["verify", bundle, "--key", public.rename(folder / f"{HOSTILE}.pem")]


def _pack(folder: Path) -> list[object]:
    (folder / "out" / HOSTILE).mkdir(parents=True)
    where = ["-o", folder / "out" / HOSTILE]
    return ["pack", _bundle(folder), "--name", "acme-guard", "--version", "1.0", *where]


def _list(folder: Path) -> list[object]:
    """An installed bundle whose manifest, which ``list`` does not verify, names any detector."""
    bundle = make_bundle(folder / "bundle", {"lcf": make_params()["lcf"]})
    shutil.unpack_archive(pack(bundle, "acme-guard", "1.0", folder), folder / "site", "zip")
    installed = folder / "site/layerguard_bundles/acme_guard"
    edit_manifest(
        installed, lambda value: value["detectors"].update({HOSTILE: value["detectors"]["lcf"]})
    )
    return ["list"]


def _audit_log(folder: Path) -> list[object]:
    (folder / "key").write_text("00" * 32)
    log = folder / HOSTILE
    log.write_text(json.dumps({HOSTILE: HOSTILE}) + "\n" + HOSTILE)
    return ["audit-log", "verify", log, "--key-file", folder / "key"]


def _trace(folder: Path) -> list[object]:
    bundle = tiny_analysis.make_traceable(folder / HOSTILE)
    return ["trace", bundle, "--input", _rows(folder, 3)]


def _fuse(folder: Path) -> list[object]:
    bundle = tiny_decoder.make_bundle(folder / HOSTILE)
    return ["fuse", bundle, "--texts", _rows(folder, 2)]


def _export_triton(folder: Path) -> list[object]:
    return ["export-triton", _bundle(folder), "-o", folder / HOSTILE, "--name", HOSTILE]


_CALLS: dict[str, Callable[[Path], list[object]]] = {
    "export": _export,
    "calibrate": lambda folder: [
        "calibrate",
        _bundle(folder, {}),
        "--clean",
        _rows(folder),
        *_TARGET,
    ],
    "import-siren": _import_siren,
    "recalibrate": lambda folder: [
        "recalibrate",
        _bundle(folder),
        "--shadow",
        _rows(folder),
        *_TARGET,
    ],
    "fuse": _fuse,
    "export-triton": _export_triton,
    "score": lambda folder: ["score", _bundle(folder), "--input", _rows(folder)],
    "generate": lambda folder: ["generate", folder / HOSTILE, HOSTILE],
    "serve": lambda folder: ["serve", f"a={folder / HOSTILE}", "--check-config", "--mode", HOSTILE],
    "audit-log": _audit_log,
    "eval": lambda folder: ["eval", _bundle(folder), _rows(folder)],
    "parity": lambda folder: ["parity", _bundle(folder), _bundle(folder), _rows(folder)],
    "drift fit": _drift_fit,
    "drift check": _drift_check,
    "audit": _audit,
    "trace": _trace,
    "pack": _pack,
    "list": _list,
    "sign": _sign,
    "verify": _verify,
    "inspect": lambda folder: ["inspect", _bundle(folder)],
    "doctor": lambda folder: ["doctor", folder / HOSTILE],
    "bench": lambda folder: ["bench", folder / HOSTILE],
}


def test_every_command_is_called() -> None:
    """The demo alone prints the project's own texts."""
    assert _CALLS.keys() == COMMANDS.keys() - {"demo"}


@pytest.mark.parametrize("name", _CALLS)
def test_a_command_escapes_what_strangers_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    """Folders, files, models, rows, detectors, runs and packages; in errors too."""
    monkeypatch.syspath_prepend(tmp_path / "site")
    arguments = _CALLS[name](tmp_path)
    capsys.readouterr()
    text = run(capsys, *arguments)
    assert "this is a bug" not in text
    assert _ESCAPED in text, text


def test_wrong_arguments_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    """A shell makes arguments out of names of files."""
    with pytest.raises(SystemExit):
        main(["score", "a", "b", HOSTILE])
    text = capsys.readouterr().err
    assert _ESCAPED in text
    assert HOSTILE[:4] not in text


def test_commands_print_through_show() -> None:
    """``print`` is for JSON, which escapes by itself, and for texts that are escaped there."""
    allowed = {"json.dumps", "printable", "_overview"}
    folders = ("runtime/cli", "calibration/commands", "exporter")
    found = []
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        if "demo" in path.parts or path.name == "streams.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "print":
                given = [ast.unparse(one.func) for one in node.args if isinstance(one, ast.Call)]
                if not node.args or (len(given) == len(node.args) and set(given) <= allowed):
                    continue
                found.append(f"{path.relative_to(ROOT)}: {ast.unparse(node)}")
    assert found == ["runtime/cli/__init__.py: print(f\"layerguard {version('layerguard')}\")"]
