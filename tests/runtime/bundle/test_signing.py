"""Signatures: valid, altered, of another key or bundle, missing, and malformed ones."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from layerguard.runtime import Bundle, BundleError, Guard, InputError, MachineError
from layerguard.runtime import guard as guard_module
from layerguard.runtime.bundle import signing
from layerguard.runtime.bundle.signing import MAX_SIGNATURE_BYTES, load_verified, sign
from layerguard.runtime.cli import main
from layerguard.runtime.packing import pack
from tests.keys import make_keys
from tests.runtime.tamper import put, put_arrays
from tests.tiny import make_bundle, make_params

PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The key pair that signs the bundles of this module."""
    return make_keys(tmp_path_factory.mktemp("keys"), "ours")


@pytest.fixture
def signed(bundle: Path, keys: tuple[Path, Path]) -> Path:
    """A signed bundle for one test."""
    sign(bundle, keys[0])
    return bundle


def refused(bundle: Path, key: Path, *words: str) -> None:
    """Loading ``bundle`` fails, and the error contains these words."""
    with pytest.raises(BundleError) as caught:
        Guard.load(bundle, threads=1, verify=key)
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_a_sound_signature_serves(signed: Path, keys: tuple[Path, Path], guard: Guard) -> None:
    """A guard that verifies the signature gives the same readings as one that does not."""
    verdict = Guard.load(signed, threads=1, verify=keys[1]).check("the garden")
    assert verdict.readings == guard.check("the garden").readings
    assert verdict.bundle_id == guard.bundle.id
    assert Guard.load(signed, threads=1).bundle.id == guard.bundle.id


def _make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


_ALTERED: dict[str, Callable[[Path], object]] = {
    "an-array": lambda folder: put_arrays(folder, {"lcf/threshold": np.array(1e9)}),
    "the-tokenizer": lambda folder: put(folder, "tokenizer.json", b"{}"),
    "one-byte-of-the-manifest": lambda folder: (folder / "manifest.json").write_bytes(
        (folder / "manifest.json").read_bytes() + b" "
    ),
    "a-file-more": lambda folder: put(folder, "more.bin", b"x"),
    "a-file-less": lambda folder: (folder / "detectors.npz").unlink(),
    "a-folder-for-a-file": lambda folder: _make_folder(folder / "tokenizer.json"),
    "a-link": lambda folder: (folder / "link").symlink_to("manifest.json"),
    "a-pipe": lambda folder: os.mkfifo(folder / "pipe"),
}


@pytest.mark.parametrize("name", _ALTERED)
def test_an_altered_bundle_is_refused(
    signed: Path, keys: tuple[Path, Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This holds even if the manifest's hashes match, and before the manifest is parsed."""
    _ALTERED[name](signed)
    monkeypatch.setattr(Bundle, "load", lambda *_: pytest.fail("it was parsed"))
    refused(signed, keys[1], "copy")


def test_files_that_the_library_passes_over_are_refused(
    signed: Path, keys: tuple[Path, Path]
) -> None:
    """model-signing ignores git's files, so an extra one is refused as unlisted."""
    (signed / ".gitattributes").write_bytes(b"x")
    refused(signed, keys[1], "'.gitattributes' is not in the manifest")


def test_a_signature_of_another_bundle_is_refused(
    signed: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    """For a valid signature of another bundle, the differing files are named."""
    other = put(make_bundle(tmp_path / "other"), "tokenizer.json", b"{}")
    shutil.copy(signed / "model.sig", other)
    refused(other, keys[1], "the signature is of another bundle", "tokenizer.json", "manifest.json")


def test_another_key_is_refused(signed: Path, tmp_path: Path) -> None:
    """The message names the key that was tried."""
    _, public = make_keys(tmp_path, "theirs")
    refused(signed, public, "another key", str(public))


def test_a_claim_to_be_of_the_right_key_is_no_use(
    signed: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    """A signature of another key with our key hint fails verification."""
    private, _ = make_keys(tmp_path, "theirs")
    ours = json.loads((signed / "model.sig").read_text())
    sign(signed, private)
    theirs = json.loads((signed / "model.sig").read_text())
    theirs["verificationMaterial"] = ours["verificationMaterial"]
    (signed / "model.sig").write_text(json.dumps(theirs))
    refused(signed, keys[1], "InvalidSignature")


@pytest.mark.parametrize("name", ["publicKey", "public_key"])
@pytest.mark.parametrize("hint", [{}, {"hint": None}, {"hint": ""}])
def test_an_old_signature_verifies_without_printing(
    signed: Path,
    keys: tuple[Path, Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    name: str,
    hint: dict[str, str | None],
) -> None:
    """Old releases of model-signing did not name the key; the warning goes to the log only."""
    signature = json.loads((signed / "model.sig").read_text())
    signature["verificationMaterial"] = {name: hint, "tlogEntries": []}
    (signed / "model.sig").write_text(json.dumps(signature))
    assert load_verified(signed, keys[1])
    assert capfd.readouterr().out == ""
    assert "sign the bundle again" in caplog.text
    refused(signed, make_keys(tmp_path, "theirs")[1], "InvalidSignature")


def test_a_thread_that_prints_meanwhile_keeps_its_output(
    signed: Path,
    keys: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Signing and verifying leave the standard streams of the process alone."""
    import model_signing  # noqa: PLC0415

    def beside(run: Callable[..., object], text: str) -> Callable[..., object]:
        def running(*arguments: object) -> object:
            thread = threading.Thread(target=print, args=(text,))
            thread.start()
            thread.join()
            return run(*arguments)

        return running

    for module, method in (("signing", "sign"), ("verifying", "verify")):
        config = getattr(model_signing, module).Config
        monkeypatch.setattr(config, method, beside(getattr(config, method), method))
    sign(signed, keys[0])
    assert load_verified(signed, keys[1])
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("sign\nverify\n", "")


def test_a_missing_signature_is_refused(sound: Path, keys: tuple[Path, Path]) -> None:
    """The message says how to get a signature."""
    refused(sound, keys[1], "model.sig is missing", "layerguard sign")


_NO_SIGNATURES = {
    "empty": b"",
    "no-text": b"\xff\xfe",
    "no-json": b"{",
    "deep": b"[" * 100_000,
    "a-list": b"[]",
    "a-number": b"1",
    "no-members": b"{}",
    "no-envelope": b'{"verificationMaterial": {}}',
    "odd-envelope": b'{"verificationMaterial": {"publicKey": 3}, "dsseEnvelope": []}',
    "too-large": b" " * (MAX_SIGNATURE_BYTES + 1),
}


@pytest.mark.parametrize("name", _NO_SIGNATURES)
def test_what_is_no_signature_is_refused(bundle: Path, keys: tuple[Path, Path], name: str) -> None:
    """Any malformed signature file is refused."""
    (bundle / "model.sig").write_bytes(_NO_SIGNATURES[name])
    refused(bundle, keys[1], "model.sig")


def test_a_pipe_is_no_signature(bundle: Path, keys: tuple[Path, Path]) -> None:
    """A pipe is refused at once; the reader does not wait for it."""
    os.mkfifo(bundle / "model.sig")
    refused(bundle, keys[1], "model.sig is not a file")


def test_every_truncation_is_refused(signed: Path, keys: tuple[Path, Path]) -> None:
    """A signature that is cut off at any point is refused."""
    whole = (signed / "model.sig").read_bytes()
    for size in range(0, len(whole), max(1, len(whole) // 25)):
        (signed / "model.sig").write_bytes(whole[:size])
        refused(signed, keys[1], "model.sig")


def test_a_signature_that_leaves_the_manifest_out_is_refused(
    bundle: Path, keys: tuple[Path, Path]
) -> None:
    """A valid signature that does not cover the manifest is refused."""
    import model_signing  # noqa: PLC0415

    ignoring = model_signing.hashing.Config().set_ignored_paths(
        paths=["manifest.json", "model.sig"]
    )
    config = model_signing.signing.Config().set_hashing_config(ignoring)
    config.use_elliptic_key_signer(private_key=keys[0]).sign(bundle, bundle / "model.sig")
    refused(bundle, keys[1], "sha256 (none)", "sign the bundle again")


def test_what_was_loaded_is_what_was_signed(
    signed: Path, keys: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If another valid bundle replaces the verified one, it is not served."""
    params = make_params()
    params["lcf"]["threshold"] = np.array(1e9)
    other = make_bundle(tmp_path / "other", params)
    monkeypatch.setattr(signing, "read_bundle", lambda *_: Bundle.load(other))
    refused(signed, keys[1], "the signature is for a manifest.json")


@pytest.mark.parametrize("step", ["Backbone", "bind_detectors", "replay_canaries"])
@pytest.mark.parametrize("name", ["score.onnx", "tokenizer.json", "detectors.npz"])
def test_a_file_that_changes_behind_the_verification_is_refused(
    signed: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, name: str, step: str
) -> None:
    """One changed bit after verification and before the end of loading is detected."""
    real = getattr(guard_module, step)

    def altering(*arguments: object) -> object:
        done = real(*arguments)
        data = bytearray((signed / name).read_bytes())
        data[len(data) // 2] ^= 1
        (signed / name).write_bytes(data)
        return done

    monkeypatch.setattr(guard_module, step, altering)
    refused(signed, keys[1], name, "does not have the signed sha256")


def test_copies_and_wheels_keep_it(
    signed: Path, keys: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signature does not cover the folder's name, so copies and wheels verify."""
    copy = shutil.copytree(signed, tmp_path / "copy")
    assert load_verified(copy, keys[1]).id == Bundle.load(signed).id
    wheel = pack(signed, "acme-guard", "1.2.0", tmp_path)
    shutil.unpack_archive(wheel, tmp_path / "site", "zip")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert Guard.load("acme-guard", threads=1, verify=keys[1]).bundle.id == Bundle.load(signed).id


def test_nobody_is_asked(
    bundle: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither signing nor verifying opens a network connection."""
    monkeypatch.setattr(socket, "socket", lambda *_, **__: pytest.fail("a socket was opened"))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("a name was looked up"))
    sign(bundle, keys[0])
    assert load_verified(bundle, keys[1])


def test_a_link_to_the_folder_verifies(signed: Path, keys: tuple[Path, Path]) -> None:
    """The bundle's path may be a symbolic link."""
    link = signed.with_name("current")
    link.symlink_to(signed)
    assert load_verified(link, keys[1]).path == link


def test_signing_where_one_stands(
    bundle: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path ``.`` works."""
    monkeypatch.chdir(bundle)
    sign(Path(), keys[0])
    assert load_verified(Path(), keys[1]).id == Bundle.load(bundle).id


def test_signing_again_replaces_it(signed: Path, tmp_path: Path) -> None:
    """A second signature replaces the first, and no other file is left."""
    before = {path.name for path in signed.iterdir()}
    private, public = make_keys(tmp_path, "later")
    sign(signed, private)
    assert load_verified(signed, public)
    assert {path.name for path in signed.iterdir()} == before
    assert {path.name for path in signed.parent.iterdir()} == {"bundle", "later.pem", "later.pub"}


def test_a_bundle_written_anew_has_no_signature(signed: Path) -> None:
    """Writing a bundle removes its signature."""
    make_bundle(signed)
    assert not (signed / "model.sig").exists()


def test_a_key_with_a_password(bundle: Path, tmp_path: Path) -> None:
    """The password is required, and the right one works."""
    private, public = make_keys(tmp_path, "locked", PASSWORD)
    with pytest.raises(InputError, match=r"(?i)password"):
        sign(bundle, private)
    sign(bundle, private, PASSWORD)
    assert load_verified(bundle, public)


def test_the_reference_program_verifies_ours(signed: Path, keys: tuple[Path, Path]) -> None:
    """``model_signing verify key`` accepts our signatures."""
    command = (
        sys.executable, "-m", "model_signing", "verify", "key", signed,
        "--signature", signed / "model.sig", "--public_key", keys[1],
    )  # fmt: skip
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", ["missing", "folder", "text", "rsa", "curve", "other-half"])
def test_what_is_no_key_is_refused(
    signed: Path, keys: tuple[Path, Path], tmp_path: Path, kind: str
) -> None:
    """For signing and for verifying; the message says how to make a key."""
    path = tmp_path / "key.pem"
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("secret")
    elif kind in ("rsa", "curve"):
        key = (
            rsa.generate_private_key(65537, 2048)
            if kind == "rsa"
            else ec.generate_private_key(ec.SECP256K1())
        )
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        form = PublicFormat.SubjectPublicKeyInfo
        path.write_bytes(private + key.public_key().public_bytes(Encoding.PEM, form))
    public, private_path = (keys[0], keys[1]) if kind == "other-half" else (path, path)
    with pytest.raises(InputError, match=r"not a valid private key .*openssl ecparam"):
        sign(signed, private_path)
    with pytest.raises(InputError, match=r"not a valid public key .*openssl ecparam"):
        Guard.load(signed, threads=1, verify=public)


def test_no_key_is_not_no_verification(signed: Path) -> None:
    """An empty path, as from an unset variable, is refused as a wrong key."""
    with pytest.raises(InputError, match="not a valid public key"):
        Guard.load(signed, threads=1, verify="")


def test_a_faulty_bundle_is_not_signed(bundle: Path, keys: tuple[Path, Path]) -> None:
    """Signing verifies the bundle first."""
    (bundle / "notes.txt").write_text("x")
    with pytest.raises(BundleError, match=r"notes\.txt"):
        sign(bundle, keys[0])
    assert not (bundle / "model.sig").exists()


def test_a_manifest_may_not_list_a_signature(bundle: Path) -> None:
    """A signature cannot cover itself."""
    put(bundle, "model.sig", b"{}")
    with pytest.raises(BundleError, match=r"manifest\.json lists 'model\.sig'"):
        Bundle.load(bundle)


def test_without_the_library_the_extra_is_named(
    signed: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without model-signing, a bundle is not served unverified."""
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(MachineError, match=r"pip install 'layerguard\[sign\]'"):
        Guard.load(signed, threads=1, verify=keys[1])


def test_commands(
    bundle: Path,
    keys: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sign, verify, and the commands that serve with ``--verify``."""
    identity = Bundle.load(bundle).id
    private, public = make_keys(tmp_path, "locked", PASSWORD)
    assert main(["verify", str(bundle), "--key", str(public)]) == 2
    assert "model.sig is missing" in capsys.readouterr().err
    monkeypatch.setenv("LAYERGUARD_KEY_PASSWORD", PASSWORD)
    assert main(["sign", str(bundle), "--key", str(private)]) == 0
    assert capsys.readouterr().out == f"wrote {bundle / 'model.sig'}, of bundle {identity}\n"
    assert main(["verify", str(bundle), "--key", str(public)]) == 0
    assert f"bundle {identity}: 4 files, signed" in capsys.readouterr().out
    for command, text in (("score", ["the garden"]), ("doctor", [])):
        call = [command, str(bundle), *text, "--verify"]
        assert main([*call, str(public)]) == 0
        assert main([*call, str(keys[1])]) == 2
        assert "another key" in "".join(capsys.readouterr())
