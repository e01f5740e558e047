"""Signatures of bundles: OpenSSF model signing with the user's own key, offline.

The signature is the file ``model.sig`` in the bundle's folder: a Sigstore bundle around a DSSE
envelope, whose in-toto statement lists the sha256 of every other file. ``model_signing verify key``
can verify it too. The signature covers the bytes of the files and not the folder's name, so copies
and packed wheels keep it. A command that changes a bundle removes it.

Format: https://github.com/sigstore/model-transparency, ``docs/model_signing_format.md``.
"""

import base64
import hashlib
import json
import logging
import os
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from layerguard.runtime.bundle import Bundle
from layerguard.runtime.bundle.files import MANIFEST, SIGNATURE, STAGED, card_of
from layerguard.runtime.bundle.load import read_bundle
from layerguard.runtime.bundle.steady import pinned, steadily
from layerguard.runtime.errors import BundleError, InputError, MachineError
from layerguard.runtime.extras import needing

MAX_SIGNATURE_BYTES = 1 << 20
"""Upper bound for a signature. A bundle has fewer than ten files, with about 500 bytes for each."""

_LOG = logging.getLogger(__name__)

_MAKE_KEYS = (
    "openssl ecparam -name prime256v1 -genkey -noout -out private.pem && "
    "openssl ec -in private.pem -pubout -out public.pem"
)


def sign(folder: Path, key: str | Path, password: str | None = None) -> Bundle:
    """Verify the bundle in ``folder`` and write its signature; replaces an older signature.

    Args:
        folder: the bundle's folder.
        key: file with a private key, PEM, on the curve P-256, P-384 or P-521.
        password: password of the key, if it has one.

    Returns:
        The bundle.

    Raises:
        BundleError: the bundle has faults.
        InputError: the file is not a valid private key.
        MachineError: model-signing is not installed, or the signature cannot be written.
    """
    library = _library()
    secret = password.encode() if password else None  # declared as str, but only bytes work
    signer = library.signing.Config()
    try:
        signer.use_elliptic_key_signer(private_key=key, password=secret)
    except Exception as error:  # key parsers raise many exception types
        raise _wrong_key(key, "private", error) from error
    everything = library.hashing.Config().set_ignored_paths(
        paths=[SIGNATURE], ignore_git_paths=False
    )
    signer.set_hashing_config(everything)

    def sign_once(place: Path) -> tuple[Bundle, bytes]:
        bundle = read_bundle(place, folder)
        with tempfile.TemporaryDirectory(prefix="layerguard-signing-") as beside:
            file = Path(beside) / SIGNATURE
            signer.sign(place.resolve(), file)
            signature = file.read_bytes()
        _match(bundle, _signed_files(signature)[MANIFEST])
        return bundle, signature

    try:
        bundle, signature = steadily(folder, sign_once)
        # The folder may be a mount point, so an atomic rename works only inside it.
        with pinned(folder) as place:
            (place / STAGED).write_bytes(signature)
            (place / STAGED).replace(place / SIGNATURE)
    except OSError as error:
        raise MachineError(
            f"{folder / SIGNATURE} could not be written ({error.strerror}); free space on that "
            "disk, or allow writing there, and run the command again"
        ) from error
    return bundle


def load_verified(folder: Path, key: str | Path) -> Bundle:
    """Verify the signature of the bundle in ``folder``, then load it.

    No other file is parsed before the signature is verified.

    Args:
        folder: the bundle's folder.
        key: file with the public key, PEM.

    Raises:
        BundleError: the signature is missing, malformed, made with another key or for other files;
            or the bundle has faults.
        InputError: the file is not a valid public key.
        MachineError: model-signing is not installed.
    """
    return steadily(folder, lambda place: read_verified(place, folder, key))


def read_verified(place: Path, path: Path, key: str | Path) -> Bundle:
    """Verify and load once, within ``steadily``.

    Args:
        place: as ``read_bundle``.
        path: as ``read_bundle``.
        key: as ``load_verified``.

    Raises:
        BundleError, InputError, MachineError: as ``load_verified``.
    """
    signed = _verify(place, key)
    bundle = read_bundle(place, path)
    _match(bundle, signed)
    return bundle


def _verify(folder: Path, key: str | Path) -> str:
    """Verify the signature of the files in ``folder``.

    Returns:
        The sha256 of the signed manifest; empty if the signature does not cover the manifest.

    Raises:
        BundleError, InputError, MachineError: as ``load_verified``.
    """
    verifier = _library().verifying.Config()
    try:
        verifier.use_elliptic_key_verifier(public_key=key)
    except Exception as error:  # key parsers raise many exception types
        raise _wrong_key(key, "public", error) from error
    data = signature_bytes(folder)
    with os.fdopen(os.memfd_create(SIGNATURE), "wb") as copy:  # a copy that no process can change
        copy.write(_with_key_hint(data, key))
        copy.flush()
        try:
            verifier.verify(folder.resolve(), Path(f"/proc/self/fd/{copy.fileno()}"))
            return _signed_files(data).get(MANIFEST, "")
        except Exception as error:
            # Only in this case the list of files in the signature is authentic.
            differing = str(error).startswith("Signature mismatch")
            faults = _differences(folder, data) if differing else []
            raise BundleError(folder, faults or [_refusal(error, key)]) from error


def _with_key_hint(signature: bytes, key: str | Path) -> bytes:
    """The signature with the hash of ``key`` as its key hint, if it has no hint.

    Old releases of model-signing wrote signatures without a hint. For these, the library prints a
    warning on standard output, which may be reserved for JSON. The hint is not part of the signed
    payload and only names the key, so adding it does not change the result of the verification.
    """
    try:
        value: Any = json.loads(signature)
        material = value["verificationMaterial"]
        name = "publicKey" if "publicKey" in material else "public_key"
        hint = material[name].get("hint")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return signature  # malformed; model-signing refuses it
    if hint not in (None, ""):
        return signature
    _LOG.warning("%s does not name its key, as old signatures do; sign the bundle again", SIGNATURE)
    material[name]["hint"] = _key_hash(key)
    return json.dumps(value).encode()


def _key_hash(key: str | Path) -> str:
    """The sha256, in hex, of a public key in PEM, which model-signing uses as key hint."""
    from cryptography.hazmat.primitives import serialization as forms  # noqa: PLC0415  as _library

    public = forms.load_pem_public_key(Path(key).read_bytes())
    form = forms.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(public.public_bytes(forms.Encoding.PEM, form)).hexdigest()


def _library() -> ModuleType:
    """The module ``model_signing``, imported on use: this takes a second and loads HTTP clients.

    Raises:
        MachineError: it is not installed.
    """
    with needing("sign", "a signature"):
        import model_signing  # noqa: PLC0415
    return model_signing


def signature_bytes(folder: Path) -> bytes:
    """The bytes of the bundle's signature.

    Raises:
        BundleError: the signature is missing, is a link or not a regular file, or is too large.
    """
    path = folder / SIGNATURE
    try:
        if path.is_symlink() or not path.is_file():
            problem = "is not a file" if os.path.lexists(path) else "is missing"
            fault = f"{SIGNATURE} {problem}; get a signed bundle, or run `layerguard sign` on it"
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
    """Name and sha256 of every file that a signature covers."""
    statement: Any = json.loads(base64.b64decode(json.loads(signature)["dsseEnvelope"]["payload"]))
    resources = statement["predicate"]["resources"]
    return {one["name"]: one["digest"] for one in resources if one["algorithm"] == "sha256"}


def _differences(folder: Path, signature: bytes) -> list[str]:
    """Every file that differs from the signature."""
    signed = _signed_files(signature)
    files = {p.name: p for p in folder.iterdir() if p.is_file() and p.name != SIGNATURE}
    remedy = "the bundle was altered, or the signature is of another bundle: copy it again"
    return [
        *(f"{name} was signed and is missing; {remedy}" for name in sorted(signed.keys() - files)),
        *(f"{name} was not signed; {remedy}" for name in sorted(files.keys() - signed)),
        *(
            f"{name} does not have the signed sha256; {remedy}"
            for name in sorted(signed.keys() & files)
            if card_of(files[name]).sha256 != signed[name]
        ),
    ]


def _match(bundle: Bundle, signed: str) -> None:
    """Check that the loaded bundle is the signed one.

    The manifest contains the sha256 of all other files, so comparing the manifest is enough.

    Raises:
        BundleError: the bundles differ.
    """
    if not signed.startswith(bundle.id):
        fault = (
            f"the signature is for a {MANIFEST} with sha256 {signed[:16] or '(none)'}; found one "
            f"with {bundle.id}: sign the bundle again"
        )
        raise BundleError(bundle.path, [fault])


def _refusal(error: Exception, key: str | Path) -> str:
    """Why a signature was refused; cryptography's InvalidSignature has an empty message."""
    reason = str(error) or type(error).__name__
    if reason.startswith("Key mismatch"):
        return (
            f"{SIGNATURE} was made with another key than {key}; use the signer's public key, or "
            "get the bundle again"
        )
    return f"{SIGNATURE} does not verify with {key} ({reason}); copy the bundle again"


def _wrong_key(key: str | Path, kind: str, error: Exception) -> InputError:
    return InputError(
        f"{key} is not a valid {kind} key ({error}); expected a key in PEM on the curve P-256, "
        f"P-384 or P-521, such as one made with: {_MAKE_KEYS}"
    )
