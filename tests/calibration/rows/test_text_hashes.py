"""Keyed hashes of calibration texts: recognised with the key, not guessed without it."""

import hashlib
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from layerguard.calibration import calibrate, recalibrate
from layerguard.calibration.rows.leakage import normalised
from layerguard.calibration.rows.text_hashes import TextHashes, hashes_of, own_hashes
from layerguard.runtime import Bundle, InputError, MachineError
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.text.request import request
from tests.tiny import WORDS, make_bundle

_TEXTS = [" ".join((WORDS[5 + i % 20], WORDS[5 + i // 20], "garden")) for i in range(120)]


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a key that is not made yet."""
    path = tmp_path / "state" / "text-key"
    monkeypatch.setenv("LAYERGUARD_TEXT_KEY", str(path))
    return path


def _rows(texts: list[str]) -> list[Row]:
    return [Row(text, request(text)) for text in texts]


def _calibrated(folder: Path) -> Bundle:
    make_bundle(folder, {})
    calibrate(folder, clean=_rows(_TEXTS), target_fpr=0.1)
    return Bundle.load(folder)


def test_texts_cannot_be_guessed_from_a_bundle(tmp_path: Path, key: Path) -> None:
    """Hashing every calibration text without the key gives none of the hashes in the bundle."""
    bundle = _calibrated(tmp_path / "bundle")
    held = {int(code) for name in ("texts", "seen") for code in bundle.decision[name]}
    assert len(held) == len(_TEXTS)
    for guess in map(normalised, _TEXTS):
        digest = hashlib.sha256(guess.encode()).digest()[:8]
        assert int(np.frombuffer(digest, "<i8")[0]) not in held
    assert held == set(TextHashes(key.read_bytes()).of(map(normalised, _TEXTS)).tolist())


def test_the_key_is_not_in_the_bundle(tmp_path: Path, key: Path) -> None:
    """No file of the bundle holds it, and only its owner may read it."""
    bundle = _calibrated(tmp_path / "bundle")
    secret = key.read_bytes()
    assert len(secret) == 32
    for path in bundle.path.iterdir():
        data = path.read_bytes()
        assert secret not in data
        assert secret.hex().encode() not in data
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert list(key.parent.iterdir()) == [key]


def test_the_same_key_gives_the_same_bytes(tmp_path: Path, key: Path) -> None:
    """Another key gives other hashes, and the same thresholds."""
    first, second = (_calibrated(tmp_path / name) for name in ("a", "b"))
    assert first.id == second.id
    key.unlink()
    third = _calibrated(tmp_path / "c")
    assert third.id != first.id
    assert third.manifest.detectors == first.manifest.detectors


def test_a_later_calibration_recognises_texts_with_the_key(tmp_path: Path, key: Path) -> None:
    """With another key it is refused, with what to do; a full calibration is not."""
    bundle = _calibrated(tmp_path / "bundle")
    shadow = _rows([*_TEXTS, *(f"{text} boats" for text in _TEXTS)])
    assert recalibrate(bundle.path, shadow).clean_texts == len(_TEXTS)
    key.unlink()
    with pytest.raises(InputError, match=r"(?s)with key .*set LAYERGUARD_TEXT_KEY"):
        recalibrate(bundle.path, shadow)
    calibrate(bundle.path, clean=_rows(_TEXTS), target_fpr=0.1)


def test_older_bundles_have_no_key(tmp_path: Path, key: Path) -> None:
    """Their texts are recognised as before."""
    bundle = _calibrated(tmp_path / "bundle")
    older = replace(bundle, manifest=replace(bundle.manifest, text_key=""))
    code = np.frombuffer(hashlib.sha256(b"a garden").digest()[:8], "<i8")
    assert hashes_of(older).of(["a garden"]).tolist() == code.tolist()
    assert hashes_of(older).id == ""
    assert hashes_of(bundle).id == own_hashes().id == bundle.manifest.text_key
    assert key.read_bytes().hex()[:16] != bundle.manifest.text_key


@pytest.mark.parametrize("content", [b"", b"short"])
def test_what_is_no_key_is_refused(key: Path, content: bytes) -> None:
    """An empty key would be no key."""
    key.parent.mkdir()
    key.write_bytes(content)
    with pytest.raises(InputError, match="expected a key of at least 32 random bytes"):
        own_hashes()


def test_a_place_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the variable."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("LAYERGUARD_TEXT_KEY", str(tmp_path / "file" / "key"))
    with pytest.raises(MachineError, match="set LAYERGUARD_TEXT_KEY to a file"):
        own_hashes()
