"""Manifests that are no manifest at all: other bytes, other formats, other times."""

from collections.abc import Callable
from pathlib import Path

import pytest

from layerguard.runtime.bundle.manifest import MAX_MANIFEST_BYTES
from tests.runtime.tamper import edit_manifest, manifest_of, refused, write_manifest

_Break = Callable[[bytes], bytes]

_BYTES: dict[str, tuple[_Break, str]] = {
    "empty": (lambda _: b"", "not JSON"),
    "blank": (lambda _: b" \n\t", "not JSON"),
    "words": (lambda _: b"this is no JSON", "not JSON"),
    "half": (lambda data: data[: len(data) // 2], "not JSON"),
    "two-values": (lambda data: data + data, "Extra data"),
    "trailing-comma": (lambda _: b'{"schema": 1,}', "not JSON"),
    "comment": (lambda data: b"// hello\n" + data, "not JSON"),
    "zeros": (lambda data: bytes(len(data)), "not JSON"),
    "not-utf-8": (lambda data: data.replace(b"tiny", b"t\xffny"), "can't decode byte 0xff"),
    "byte-order-mark": (lambda data: b"\xef\xbb\xbf" + data, "BOM"),
    "utf-16": (lambda data: data.decode().encode("utf-16"), "can't decode"),
    "lone-surrogate": (lambda data: data.replace(b"tiny", b"\\ud800"), "surrogates not allowed"),
    "deep-lists": (lambda _: b"[" * 100_000 + b"]" * 100_000, "not JSON"),
    "deep-objects": (lambda _: b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "not JSON"),
    "endless-number": (lambda _: b'{"schema": ' + b"9" * 5000 + b"}", "4300 digits"),
    "twin-key": (lambda data: data.replace(b'"schema": 1', b'"schema": 1, "schema": 1'), "twice"),
    "twin-key-inside": (
        lambda data: data.replace(b'"width": 16', b'"width": 16, "width": 17'),
        "'width' appears twice",
    ),
    "list": (lambda data: b"[" + data + b"]", "expected an object"),
    "text": (lambda _: b'"manifest"', "expected an object"),
    "null": (lambda _: b"null", "expected an object"),
    "number": (lambda _: b"7", "expected an object"),
    "NaN": (lambda _: b"NaN", "expected an object"),
    "oversize": (lambda data: data + b" " * MAX_MANIFEST_BYTES, f"more than {MAX_MANIFEST_BYTES}"),
}


@pytest.mark.parametrize("case", _BYTES)
def test_what_is_not_a_manifest_is_refused(bundle: Path, case: str) -> None:
    """Bytes that are no manifest give one fault that says what they are."""
    path = bundle / "manifest.json"
    change, word = _BYTES[case]
    changed = change(path.read_bytes())
    assert changed != path.read_bytes()
    path.write_bytes(changed)
    assert len(refused(bundle, "manifest.json", word)) == 1


@pytest.mark.parametrize("schema", [2, 17, 10**30])
def test_a_manifest_of_the_future_names_the_way_on(bundle: Path, schema: int) -> None:
    """A newer schema is refused with both versions and what to do, and with no other fault."""
    edit_manifest(bundle, lambda value: value.update(schema=schema, invented={"later": True}))
    assert len(refused(bundle, f"schema {schema}", "up to 1", "upgrade layerguard")) == 1


@pytest.mark.parametrize("schema", [0, -1])
def test_a_schema_that_never_was_is_refused(bundle: Path, schema: int) -> None:
    """Versions count from one."""
    refused(edit_manifest(bundle, lambda value: value.update(schema=schema)), f"schema is {schema}")


def test_settings_may_be_nested_only_so_far(bundle: Path) -> None:
    """The one free value of the manifest is bounded, so that nothing that walks it can overflow."""
    value = manifest_of(bundle)
    deep: object = 1
    for _ in range(200):
        deep = [deep]
    value["detectors"]["lcf"]["settings"] = {"deep": deep}
    refused(write_manifest(bundle, value), "lcf.settings", "16 levels")


def test_settings_hold_no_infinity(bundle: Path) -> None:
    """Neither does it hold what JSON cannot say."""
    value = manifest_of(bundle)
    value["detectors"]["lcf"]["settings"] = {"learning_rate": [float("nan")]}
    refused(write_manifest(bundle, value), "lcf.settings", "finite")


def test_a_hundred_thousand_faults_stay_readable(bundle: Path) -> None:
    """All faults are kept, a hundred are shown, and the rest are counted."""
    strangers = {f"stranger_{i}": 0 for i in range(100_000)}
    faults = refused(write_manifest(bundle, manifest_of(bundle) | strangers), "and 99900 more")
    assert len(faults) == 100_000


def test_a_refused_bundle_does_not_steer_the_terminal(bundle: Path) -> None:
    """Escape sequences in keys and values are shown, not sent."""
    value = manifest_of(bundle)
    value["model"]["\x1b[2J\nok"] = 1
    refused(write_manifest(bundle, value), "\\x1b[2J")
    del value["model"]["\x1b[2J\nok"]
    value["graphs"]["\x1b]0;owned\x07"] = {**value["graphs"]["score"], "outputs": []}
    refused(write_manifest(bundle, value), "graphs.\\x1b]0;owned\\x07 has no last output")


def test_a_refused_bundle_does_not_flood_the_terminal(bundle: Path) -> None:
    """However long a hostile value is, the line about it is of bounded length."""
    value = manifest_of(bundle)
    value["text"]["template"] = "\x1b[31m" * 50_000
    value["graphs"]["score"]["outputs"][0]["name"] = "n" * 1_000_000
    value["graphs"]["score"]["outputs"][0]["layer"] = 99
    refused(write_manifest(bundle, value), "text.template is '\\x1b", "outputs ['nnnn")
