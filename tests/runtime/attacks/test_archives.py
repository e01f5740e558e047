"""``detectors.npz`` as a hostile zip: nothing in it may swell, lead out of it, or hide."""

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from layerguard.runtime.bundle.npz import MAX_MEMBERS
from tests.runtime.tamper import put, put_member, refused, within

_ARCHIVE = "detectors.npz"


def _zip(members: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return buffer.getvalue()


def _npy(value: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(value), allow_pickle=False)
    return buffer.getvalue()


_ONE = _zip([("lcf/mu.npy", _npy(1.0))])
_BYTES: dict[str, bytes] = {
    "empty": b"",
    "words": b"this is no archive",
    "tar": b"detectors" + bytes(503),
    "single-npy": _npy([1.0, 2.0]),
    "half": _ONE[: len(_ONE) // 2],
    "directory-lost": _ONE[:-10],
    "directory-offset-beyond-the-end": _ONE[:-6] + struct.pack("<I", 1 << 30) + _ONE[-2:],
    "local-header-lost": b"\0\0\0\0" + _ONE[4:],
}


@pytest.mark.parametrize("case", _BYTES)
def test_what_is_no_archive_is_refused(bundle: Path, case: str) -> None:
    """Bytes that are no readable zip are refused by the file's name."""
    put(bundle, _ARCHIVE, _BYTES[case])
    refused(bundle, _ARCHIVE, "cannot be read", "calibrate again")


def test_an_altered_array_fails_its_checksum(bundle: Path) -> None:
    """A flipped bit is found by the archive's own checksum where the manifest was resealed."""
    data = bytearray((bundle / _ARCHIVE).read_bytes())
    start = data.index(b"lcf/mu.npy")
    data[start + 300] ^= 1
    put(bundle, _ARCHIVE, bytes(data))
    refused(bundle, "cannot be read", "Bad CRC-32", "lcf/mu.npy")


_TRICKS = {
    "parent": "../lcf/mu.npy",
    "absolute": "/lcf/mu.npy",
    "too-deep": "lcf/a/mu.npy",
    "flat": "mu.npy",
    "no-suffix": "lcf/mu",
    "folder": "lcf/",
    "upper-case": "LCF/MU.npy",
    "dots": "lcf/...npy",
    "backslash": "lcf\\mu.npy",
    "escape": "lcf/\x1b[2J.npy",
    "very-long": f"lcf/{'a' * 5_000}.npy",
    "pickle": "lcf/mu.pkl",
}


@pytest.mark.parametrize("case", _TRICKS)
def test_members_that_play_tricks_are_named(bundle: Path, case: str) -> None:
    """Members are named <detector>/<name>.npy; any other name is refused and shown shortened."""
    put_member(bundle, _TRICKS[case], _npy(1.0))
    (fault,) = refused(bundle, "expected <detector>/<name>.npy")
    assert len(fault) < 200


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_that_stand_twice_are_named(bundle: Path) -> None:
    """Two members of one name could be read differently by two readers."""
    put(bundle, _ARCHIVE, _zip([("lcf/mu.npy", _npy(1.0)), ("lcf/mu.npy", _npy(2.0))]))
    refused(bundle, "'lcf/mu.npy' appears 2 times")


@pytest.mark.parametrize(("method", "number"), [("DEFLATED", 8), ("BZIP2", 12), ("LZMA", 14)])
def test_packed_members_are_refused(bundle: Path, method: str, number: int) -> None:
    """Arrays are stored as they are, so that an archive never unpacks to more than it weighs."""
    put_member(bundle, "lcf/mu.npy", _npy(np.zeros(1000)), getattr(zipfile, f"ZIP_{method}"))
    refused(bundle, "'lcf/mu.npy'", f"packed by method {number}", "expected stored")


def test_a_bomb_is_refused_before_it_is_unpacked(bundle: Path) -> None:
    """Sixty-four megabytes of zeros in sixty-four kilobytes are refused by their header alone."""
    data = _npy(np.zeros(1, np.float32))[:128] + bytes(1 << 26)
    put_member(bundle, "lcf/mu.npy", data, zipfile.ZIP_DEFLATED)
    with within(20):
        refused(bundle, "'lcf/mu.npy'", "expected stored")


def _patched(fields: dict[int, bytes]) -> bytes:
    """An archive of one member, its central directory patched at the given offsets."""
    data = bytearray(_ONE)
    start = data.index(b"PK\x01\x02")
    for offset, value in fields.items():
        data[start + offset : start + offset + len(value)] = value
    return bytes(data)


_HEADERS = {
    "encrypted": ({8: b"\x01\x00"}, "is encrypted"),
    "strongly-encrypted": ({8: b"\x41\x00"}, "is encrypted"),
    "unknown-method": ({10: b"\x63\x00"}, "packed by method 99"),
    "claims-four-gigabytes": ({24: b"\xff\xff\xff\xfe"}, "4278190079 bytes unpacked"),
    "claims-more-than-there-is": ({20: b"\x00\x10\x00\x00", 24: b"\x00\x10\x00\x00"}, "lcf/mu"),
    "claims-less-than-there-is": ({20: b"\x10\x00\x00\x00", 24: b"\x10\x00\x00\x00"}, "lcf/mu"),
    "needs-a-later-zip": ({6: b"\xff\x00"}, "zip file version 25.5"),
    "is-another-member": ({46: b"lcf/mv.npy"}, "differ"),
}


@pytest.mark.parametrize("case", _HEADERS)
def test_headers_that_lie_are_refused(bundle: Path, case: str) -> None:
    """What the archive's directory claims is checked against limits and against the member."""
    fields, word = _HEADERS[case]
    put(bundle, _ARCHIVE, _patched(fields))
    refused(bundle, _ARCHIVE, word)


@pytest.mark.parametrize("count", [MAX_MEMBERS + 1, 50_000])
def test_too_many_members_are_counted_not_read(bundle: Path, count: int) -> None:
    """A flood of members is refused by its number, in time that grows no faster than it."""
    put(bundle, _ARCHIVE, _zip([(f"lcf/x{i}.npy", b"") for i in range(count)]))
    with within(20):
        assert len(refused(bundle, f"{count} members", f"at most {MAX_MEMBERS}")) == 1


def _raw(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """An npy file with any text for a header."""
    size = struct.pack("<H", len(header)) if version[0] == 1 else struct.pack("<I", len(header))
    return b"\x93NUMPY" + version + size + header.encode("latin-1") + data


def _header(descr: str, shape: str, order: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


_ARRAYS: dict[str, tuple[bytes, str]] = {
    "no-npy": (b"no array at all", "magic string is not correct"),
    "empty-member": (b"", "cannot be read"),
    "version-3": (_raw(_header("'<f4'", "(1,)"), bytes(4), b"\x03\x00"), "npy version (3, 0)"),
    "version-9": (_raw(_header("'<f4'", "(1,)"), bytes(4), b"\x09\x09"), "npy version (9, 9)"),
    "call-in-header": (_raw("__import__('os').system('true')\n"), "cannot be read"),
    "lambda-in-header": (_raw("(lambda: 1)()\n"), "cannot be read"),
    "nested-header": (_raw("(" * 3000 + ")" * 900), "cannot be read"),
    "endless-header": (_raw(_header("'<f4'", "(1,)") + " " * 8000, bytes(4)), "cannot be read"),
    "header-is-a-list": (_raw("[1, 2]\n"), "cannot be read"),
    "header-lacks-a-key": (_raw("{'descr': '<f4', 'shape': (1,)}\n"), "cannot be read"),
    "header-of-python-2": (_raw(_header("'<f4'", "(1L,)"), bytes(4)), "cannot be read"),
    "header-cut-off": (_raw(_header("'<f4'", "(1,)"))[:30], "cannot be read"),
    "unknown-dtype": (_raw(_header("'<q7'", "(1,)"), bytes(7)), "cannot be read"),
    "object": (_raw(_header("'|O'", "(1,)"), b"\x80\x04N."), "dtype object"),
    "text": (_raw(_header("'<U4'", "(1,)"), bytes(16)), "dtype <U4"),
    "dates": (_raw(_header("'<M8[s]'", "(1,)"), bytes(8)), "dtype datetime64[s]"),
    "complex": (_raw(_header("'<c8'", "(1,)"), bytes(8)), "dtype complex64"),
    "structured": (_raw(_header("[('a', '<f4')]", "(1,)"), bytes(4)), "dtype [('a', '<f4')]"),
    "big-endian": (_raw(_header("'>f4'", "(1,)"), bytes(4)), "dtype >f4"),
    "fortran-order": (_raw(_header("'<f4'", "(2, 2)", "True"), bytes(16)), "expected C order"),
    "longer-than-its-shape": (_raw(_header("'<f4'", "(1,)"), bytes(400)), "and 400 bytes"),
    "shorter-than-its-shape": (_raw(_header("'<f4'", "(100,)"), bytes(4)), "and 4 bytes"),
    "astronomical-shape": (_raw(_header("'<f4'", "(10**9, 10**9)")), "cannot be read"),
    "huge-shape": (_raw(_header("'<f4'", "(1000000000, 1000000000)")), "and 0 bytes"),
    "huge-shape-with-a-zero": (_raw(_header("'<f4'", f"({10**30}, 0)")), "lcf/mu"),
    "negative-shape": (_raw(_header("'<f4'", "(-1, -4)"), bytes(16)), "(-1, -4)"),
    "shape-of-fractions": (_raw(_header("'<f4'", "(1.5,)"), bytes(6)), "cannot be read"),
    "shape-of-truths": (_raw(_header("'<f4'", "(True, True)"), bytes(4)), "lcf/mu"),
}


@pytest.mark.parametrize("case", _ARRAYS)
def test_hostile_arrays_are_named(bundle: Path, case: str) -> None:
    """No array is believed: neither its header, nor its dtype, nor its order, nor its size."""
    data, word = _ARRAYS[case]
    refused(put_member(bundle, "lcf/mu.npy", data), _ARCHIVE, word)
