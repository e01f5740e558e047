"""Bundles, packages and rows from strangers: what is served, printed and revealed."""

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layerguard.calibration import calibrate
from layerguard.calibration.rows.leakage import normalised
from layerguard.runtime import Bundle, BundleError, Guard, InputError
from layerguard.runtime.bundle.installed import find_bundle
from layerguard.runtime.bundle.manifest import Canary
from layerguard.runtime.bundle.signing import sign
from layerguard.runtime.bundle.write import seal
from layerguard.runtime.cli import main
from layerguard.runtime.packing import pack
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.text.request import request
from tests import tiny_decoder
from tests.attacks.attack import Attack
from tests.keys import make_keys
from tests.runtime.bundle.test_links import mounted
from tests.runtime.model.test_mapped import put_outside
from tests.runtime.tamper import edit_manifest, refused
from tests.tiny import WORDS, make_bundle

_HOSTILE = "a\x1b[2J\rb\nbundle   0000, every file verified\x9b31m\u202ec\u2066d\x07\u2028e\x7f"
_CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_FORGED = re.compile(r"^\W*bundle   0000", re.MULTILINE)


def printed(*arguments: object) -> tuple[int, str]:
    """The exit code of a command, and what it prints on both streams."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        code = main([str(argument) for argument in arguments])
    return code, text.getvalue()


@contextlib.contextmanager
def _exchanging(one: Path, other: Path) -> Iterator[None]:
    """Let two files trade places all the time."""
    done = threading.Event()

    def exchange() -> None:
        while not done.wait(0.0005):
            os.link(one, other.with_name("kept"))
            other.replace(one)
            other.with_name("kept").replace(other)

    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _exchanged_weights(weights: Any, folder: Path) -> None:
    """A guard has the scores of the verified weights, or the bundle is refused."""
    bundle = tiny_decoder.make_bundle(folder / "bundle")
    manifest = Bundle.load(bundle).manifest
    seal(put_outside(bundle), manifest)
    sound = np.frombuffer((bundle / "weights.data").read_bytes(), np.float32)
    (folder / "bad.data").write_bytes((sound * 1.5).tobytes())

    def served() -> float | None:
        try:
            guard = Guard.load(bundle, threads=1, weights=weights)
        except BundleError:
            return None
        return guard.check("the garden").readings["siren"].score

    expected = served()
    assert expected is not None
    with _exchanging(bundle / "weights.data", folder / "bad.data"):
        assert {served() for _ in range(3)} <= {None, expected}


def _any_tolerance(folder: Path) -> None:
    bundle = make_bundle(folder / "bundle", canaries=(Canary("the garden", {}, 1e-3),))
    edit_manifest(bundle, lambda value: value["canaries"][0].update(tolerance=1e9))
    refused(bundle, "canaries[0].tolerance is 1e+09")


def _no_canaries(folder: Path) -> None:
    bundle = make_bundle(folder / "bundle", canaries=())
    assert "weak: none holds the score of lcf, siren" in _inspected(bundle)
    refused(bundle, "no canary holds the score of lcf, siren", "calibrate again")


def _empty_canaries(folder: Path) -> None:
    refused(
        make_bundle(folder / "bundle", canaries=(Canary("the garden", {}, 1e-3),)),
        "no canary holds the score of lcf, siren",
    )


def _inspected(bundle: Path) -> str:
    code, text = printed("inspect", bundle)
    assert code == 0
    return text


def _unsigned(folder: Path) -> None:
    _, public = make_keys(folder, "key")
    bundle = make_bundle(folder / "bundle")
    assert re.search(r"signed +no", _inspected(bundle))
    with pytest.raises(BundleError, match="get a signed bundle"):
        Guard.load(bundle, threads=1, verify=public)


def _altered_after_signing(folder: Path) -> None:
    private, public = make_keys(folder, "key")
    bundle = make_bundle(folder / "bundle")
    sign(bundle, private)
    assert Guard.load(bundle, threads=1, verify=public).check("the garden").status == "ok"
    edit_manifest(bundle, lambda value: value["model"].update(id="another"))
    with pytest.raises(BundleError, match="signature"):
        Guard.load(bundle, threads=1, verify=public)


def _harmless(text: str) -> None:
    """Nothing in the text steers a terminal or looks like a line of ours."""
    assert not _CONTROLS.search(text)
    assert not _FORGED.search(text)


def _printed_rows(flags: tuple[str, ...], folder: Path) -> None:
    rows = folder / "rows.jsonl"
    hostile = dict.fromkeys(("id", "text", "domain"), _HOSTILE)
    lines = [hostile, {**hostile, "text": 1}, {**hostile, _HOSTILE: 1, "label": _HOSTILE}]
    rows.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    bundle = make_bundle(folder / "bundle")
    for command in ("score", "eval"):
        given = ("--input", rows) if command == "score" else (rows,)
        code, text = printed(command, bundle, *given, *flags)
        assert code == 2
        assert text
        _harmless(text)


def _printed_bundle(folder: Path) -> None:
    bundle = make_bundle(folder / "bundle")
    edit_manifest(bundle, lambda v: v["model"].update(id=_HOSTILE, architecture=_HOSTILE))
    for command in ("inspect", "doctor"):
        code, text = printed(command, bundle)
        assert code == 0
        _harmless(text)


def _guessed_prompts(folder: Path) -> None:
    """Hashes of the calibration texts do not occur in the bundle."""
    os.environ["LAYERGUARD_TEXT_KEY"] = str(folder / "key")
    texts = [f"{WORDS[5 + i % 20]} {WORDS[5 + i // 20]} garden" for i in range(120)]
    bundle = make_bundle(folder / "bundle", {})
    calibrate(bundle, clean=[Row(text, request(text)) for text in texts], target_fpr=0.1)
    decision = Bundle.load(bundle).decision
    held = {int(code) for name in ("texts", "seen") for code in decision[name]}
    guesses = (hashlib.sha256(normalised(text).encode()).digest()[:8] for text in texts)
    assert len(held) == len(texts)
    assert not held & {int(np.frombuffer(guess, "<i8")[0]) for guess in guesses}


def _name_of_another(name: str, folder: Path) -> None:
    with pytest.raises(InputError, match=f"--name: found {name}"):
        pack(make_bundle(folder / "bundle"), name, "1.0", folder)


def _claimed_bundle(folder: Path) -> None:
    """A package that claims another one's bundle does not provide it."""
    site = folder / "site"
    for name in ("acme-guard", "aaa-guard"):
        bundle = make_bundle(folder / name)
        shutil.unpack_archive(pack(bundle, name, "1.0", folder), site, "zip")
    points = site / "aaa_guard-1.0.dist-info/entry_points.txt"
    points.write_text("[layerguard.bundles]\nacme-guard = layerguard_bundles.aaa_guard\n")
    sys.path.insert(0, str(site))
    assert find_bundle("acme-guard").name == "acme_guard"
    points.write_text("[layerguard.bundles]\naaa-guard = layerguard_bundles.acme_guard\n")
    with pytest.raises(BundleError, match="names a folder that is not its own"):
        find_bundle("aaa-guard")


def _link_outside(folder: Path) -> None:
    bundle = make_bundle(folder / "bundle")
    (bundle / "score.onnx").rename(folder / "score.onnx")
    (bundle / "score.onnx").symlink_to(folder / "score.onnx")
    refused(bundle, "copy the file itself into the folder")
    assert printed("inspect", bundle)[0] == 2


def _kubernetes_volume(folder: Path) -> None:
    """Links within a mounted volume are served: this must not be refused."""
    volume = mounted(make_bundle(folder / "bundle"), folder / "volume")
    assert printed("inspect", volume)[0] == 0
    assert Guard.load(volume, threads=1).check("the garden").status == "ok"


ATTACKS = (
    Attack("exchanged weights", partial(_exchanged_weights, "packed"), 9),
    Attack("exchanged weights, mapped", partial(_exchanged_weights, "mapped"), 9),
    Attack("a canary that allows everything", _any_tolerance),
    Attack("no canaries", _no_canaries),
    Attack("a canary without scores", _empty_canaries),
    Attack("no signature", _unsigned, 5),
    Attack("an altered signed bundle", _altered_after_signing, 5),
    Attack("escape sequences in rows", partial(_printed_rows, ()), 5),
    Attack("escape sequences in rows, as JSON", partial(_printed_rows, ("--json",)), 5),
    Attack("escape sequences in a bundle", _printed_bundle, 5),
    Attack("guesses of calibration prompts", _guessed_prompts, 5),
    *(
        Attack(f"a package named {name}", partial(_name_of_another, name))
        for name in ("pip", "json", "numpy", "layerguard")
    ),
    Attack("a package that claims another bundle", _claimed_bundle),
    Attack("a link out of the bundle", _link_outside),
    Attack("links of a Kubernetes volume", _kubernetes_volume),
)
