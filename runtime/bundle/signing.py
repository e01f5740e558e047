"""Signatures of bundles: OpenSSF model signing with a key of one's own, offline.

The signature is ``model.sig`` in the bundle's folder: a Sigstore bundle around a DSSE envelope,
whose in-toto statement lists the sha256 of every other file. ``model_signing verify key`` reads it
too. It holds for the bytes and not for the folder's name, so it stays true in copies and in packed
wheels; a command that changes a bundle leaves it behind.

Format: https://github.com/sigstore/model-transparency, ``docs/model_signing_format.md``.
"""

import base64
import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from layerguard.runtime.bundle import Bundle
from layerguard.runtime.bundle.files import MANIFEST, SIGNATURE, STAGED, card_of
from layerguard.runtime.bundle.load import steadily
from layerguard.runtime.errors import BundleError, InputError, MachineError

MAX_SIGNATURE_BYTES = 1 << 20
"""A bundle has less than ten files; 500 bytes are spent on each."""

_MAKE_KEYS = (
    "openssl ecparam -name prime256v1 -genkey -noout -out private.pem && "
    "openssl ec -in private.pem -pubout -out public.pem"
)


def sign(folder: Path, key: str | Path, password: str | None = None) -> Bundle:
    """Verify the bundle in ``folder`` and write its signature, in place of an older one.

    Args:
        folder: the bundle's folder.
        key: file with a private key, PEM, on the curve P-256, P-384 or P-521.
        password: of the key, where it has one.

    Returns:
        The bundle.

    Raises:
        BundleError: the bundle has faults.
        InputError: the key is none.
        MachineError: model-signing is not installed, or the signature cannot be written.
    """
    library = _library()
    secret = password.encode() if password else None  # a str, which it asks for, it cannot use
    signer = library.signing.Config()
    try:
        signer.use_elliptic_key_signer(private_key=key, password=secret)
    except Exception as error:  # whatever a file that is no key makes of the parsers
        raise _wrong_key(key, "private", error) from error
    everything = library.hashing.Config().set_ignored_paths(
        paths=[SIGNATURE], ignore_git_paths=False
    )
    signer.set_hashing_config(everything)

    def sign_once() -> Bundle:
        bundle = Bundle.load(folder)
        real = folder.resolve()
        with tempfile.TemporaryDirectory(prefix="layerguard-signing-") as beside:
            signature = Path(beside) / SIGNATURE
            try:
                signer.sign(real, signature)
            except ValueError as error:  # a link among the files
                raise BundleError(folder, [f"it cannot be signed: {error}"]) from error
            _match(bundle, _signed_files(signature.read_bytes())[MANIFEST])
            # the folder may be a mount point: only within it can a name be replaced at once
            (real / STAGED).write_bytes(signature.read_bytes())
            (real / STAGED).replace(real / SIGNATURE)
        return bundle

    try:
        return steadily(folder, sign_once)
    except OSError as error:
        raise MachineError(
            f"{folder / SIGNATURE} could not be written ({error.strerror}); make room on that "
            "disk, or permit writing there, and run the command again"
        ) from error


def load_verified(folder: Path, key: str | Path) -> Bundle:
    """Load the bundle in ``folder`` if its signature verifies; nothing else is parsed before that.

    Args:
        folder: the bundle's folder.
        key: file with the public key, PEM.

    Raises:
        BundleError: the signature is missing, is none, or was made with another key or of other
            files; or the bundle has faults.
        InputError: the key is none.
        MachineError: model-signing is not installed.
    """

    def load_once() -> Bundle:
        signed = _verify(folder, key)
        bundle = Bundle.load(folder)
        _match(bundle, signed)
        return bundle

    return steadily(folder, load_once)


def _verify(folder: Path, key: str | Path) -> str:
    """Verify the signature of the files in ``folder``.

    Returns:
        The sha256 of the manifest that was signed, or nothing where none was.

    Raises:
        BundleError, InputError, MachineError: as ``load_verified``.
    """
    verifier = _library().verifying.Config()
    try:
        verifier.use_elliptic_key_verifier(public_key=key)
    except Exception as error:  # as above
        raise _wrong_key(key, "public", error) from error
    data = signature_bytes(folder)
    with os.fdopen(os.memfd_create(SIGNATURE), "wb") as copy:  # which nobody changes meanwhile
        copy.write(data)
        copy.flush()
        try:
            with contextlib.redirect_stdout(sys.stderr):  # where it warns; ours may be JSON
                verifier.verify(folder.resolve(), Path(f"/proc/self/fd/{copy.fileno()}"))
            return _signed_files(data).get(MANIFEST, "")
        except Exception as error:
            differing = str(error).startswith("Signature mismatch")  # only then the list is genuine
            faults = _differences(folder, data) if differing else []
            raise BundleError(folder, faults or [_refusal(error, key)]) from error


def _library() -> ModuleType:
    """``model_signing``, imported here: it costs a second and loads network clients.

    Raises:
        MachineError: it is not installed.
    """
    try:
        import model_signing  # noqa: PLC0415
    except ImportError as error:
        raise MachineError(
            f"signatures need {error.name}, which is not installed: pip install 'layerguard[sign]'"
        ) from error
    return model_signing


def signature_bytes(folder: Path) -> bytes:
    """The bundle's signature, read as a plain file of bounded size.

    Raises:
        BundleError: it is missing, a link or another thing than a file, or too large.
    """
    path = folder / SIGNATURE
    try:
        if path.is_symlink() or not path.is_file():
            found = "is not a file" if os.path.lexists(path) else "is missing"
            fault = f"{SIGNATURE} {found}; ask for a signed bundle, or run `layerguard sign` on it"
            raise BundleError(folder, [fault])
        with path.open("rb") as file:
            data = file.read(MAX_SIGNATURE_BYTES + 1)
    except OSError as error:
        raise BundleError(folder, [f"{SIGNATURE} cannot be read ({error.strerror})"]) from error
    if len(data) > MAX_SIGNATURE_BYTES:
        fault = f"{SIGNATURE} is larger than {MAX_SIGNATURE_BYTES} bytes; expected a signature"
        raise BundleError(folder, [fault])
    return data


def _signed_files(signature: bytes) -> dict[str, str]:
    """Name and sha256 of every file that a signature is of."""
    statement: Any = json.loads(base64.b64decode(json.loads(signature)["dsseEnvelope"]["payload"]))
    resources = statement["predicate"]["resources"]
    return {one["name"]: one["digest"] for one in resources if one["algorithm"] == "sha256"}


def _differences(folder: Path, signature: bytes) -> list[str]:
    """Every file that is not as it was signed."""
    signed = _signed_files(signature)
    found = {p.name: p for p in folder.iterdir() if p.is_file() and p.name != SIGNATURE}
    remedy = "the bundle was altered, or this is another's signature: copy it again"
    return [
        *(f"{name} was signed and is missing; {remedy}" for name in sorted(signed.keys() - found)),
        *(f"{name} was not signed; {remedy}" for name in sorted(found.keys() - signed)),
        *(
            f"{name} has not the sha256 that was signed; {remedy}"
            for name in sorted(signed.keys() & found)
            if card_of(found[name]).sha256 != signed[name]
        ),
    ]


def _match(bundle: Bundle, signed: str) -> None:
    """Whether the bundle that was loaded is the one that was signed.

    Its manifest holds the sha256 of all its other files, so this one is enough.

    Raises:
        BundleError: it is not.
    """
    if not signed.startswith(bundle.id):
        fault = (
            f"the signature is of a {MANIFEST} with sha256 {signed[:16] or '(none)'}; found one "
            f"with {bundle.id}: sign the bundle again"
        )
        raise BundleError(bundle.path, [fault])


def _refusal(error: Exception, key: str | Path) -> str:
    """Why a signature was refused; cryptography's InvalidSignature has no words of its own."""
    said = str(error) or type(error).__name__
    if said.startswith("Key mismatch"):
        return f"{SIGNATURE} was made with another key than {key}; ask its maker for the public key"
    return f"{SIGNATURE} does not verify with {key} ({said}); copy the bundle again"


def _wrong_key(key: str | Path, kind: str, error: Exception) -> InputError:
    return InputError(
        f"{key} is no {kind} key that can be used ({error}); expected one in PEM on the curve "
        f"P-256, P-384 or P-521: {_MAKE_KEYS}"
    )
