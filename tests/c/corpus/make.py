"""Writes the fuzzer's corpus to this folder: small archives, valid and hostile.

    python -m tests.c.corpus.make

The first word of a name is the result of ``lg_open``: ``ok`` or a status. The same release of numpy
writes the same bytes.
"""

import io
import struct
import zipfile
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np

from layerguard.runtime.types import Array

HERE = Path(__file__).parent
LAYERS, WIDTH = 2, 3
Arrays = dict[str, Array]


def archives() -> dict[str, bytes]:
    """All archives, by name."""
    return {**_sound(), **_unfit(), **_hostile(), **_overlapping()}


def main() -> None:
    """Write all archives."""
    for old in HERE.glob("*.npz"):
        old.unlink()
    for name, data in archives().items():
        (HERE / f"{name}.npz").write_bytes(data)


def _limit(name: str) -> Arrays:
    return {
        f"{name}/threshold": np.array(2.5),
        f"{name}/clean_scores": np.array([0.5, 1.0, 2.0]),
        f"{name}/target_fpr": np.array(0.25),
        f"{name}/fpr_interval": np.array([0.0, 0.5]),
    }


def _lcf() -> Arrays:
    return {
        "lcf/mu": np.linspace(-1, 1, LAYERS * WIDTH, dtype=np.float32).reshape(LAYERS, WIDTH),
        "lcf/sigma": np.linspace(0.5, 2, LAYERS * WIDTH, dtype=np.float32).reshape(LAYERS, WIDTH),
        "lcf/score_mean": np.full(LAYERS, 1.5),
        "lcf/score_scale": np.full(LAYERS, 0.5),
        "lcf/centre": np.zeros(LAYERS),
        "lcf/precision": np.eye(LAYERS),
        **_limit("lcf"),
    }


def _delta() -> Arrays:
    """Three matrices: both of block 1, one of block 2."""
    return {
        "delta/layers": np.array([1, 1, 2], np.int32),
        "delta/parts": np.array([0, 1, 1], np.uint8),
        "delta/centre": np.array([0.5, -1, 2], np.float32),
        "delta/scale": np.array([0.5, 0.25, 2], np.float32),
        **_limit("delta"),
    }


def _familiarity() -> Arrays:
    """Two centres and one direction."""
    return {
        "familiarity/layer": np.array(1, np.int32),
        "familiarity/centres": np.array([[0] * WIDTH, [8] * WIDTH], np.float32),
        "familiarity/scale": np.array([0.5, 1, 2], np.float32),
        "familiarity/directions": np.array([[0, 0.75, 0]], np.float32),
        **_limit("familiarity"),
    }


def _siren(name: str = "siren", hidden: int = 2) -> Arrays:
    """A network of two linear maps, or of one without a hidden layer."""
    neurons = np.array([0, 2, 1], np.int32)
    widths = [len(neurons), hidden, 2] if hidden else [len(neurons), 2]
    arrays = {
        f"{name}/layers": np.array([1, 2], np.int32),
        f"{name}/neuron_offsets": np.array([0, 2, 3], np.int32),
        f"{name}/neurons": neurons,
        f"{name}/alpha": np.array([0.5, 1], np.float32),
        **_limit(name),
    }
    for i, (inputs, outputs) in enumerate(pairwise(widths)):
        weight = np.linspace(-1, 1, inputs * outputs, dtype=np.float32)
        arrays[f"{name}/weight_{i}"] = weight.reshape(outputs, inputs)
        arrays[f"{name}/bias_{i}"] = np.zeros(outputs, np.float32)
    return arrays


def _span() -> Arrays:
    """Two layers, and a window shorter than most texts."""
    return {
        "span/layers": np.array([0, 2], np.int32),
        "span/weights": np.linspace(-1, 1, 2 * WIDTH, dtype=np.float32).reshape(2, WIDTH),
        "span/bias": np.array(-0.5),
        "span/window": np.array(4, np.int32),
        **_limit("span"),
    }


def _weightwatch(dtype: type[np.floating] = np.float32) -> Arrays:
    high = np.full((4, 2), 0.25, np.float32)
    return {
        "weightwatch/directions": np.eye(2, WIDTH).astype(dtype),
        "weightwatch/layers": np.array([1, 2], np.int32),
        "weightwatch/parts": np.array([0, 1], np.uint8),
        "weightwatch/ranks": np.array([0, 3], np.int32),
        "weightwatch/singular_values": np.ones(2, np.float32),
        "weightwatch/low": -high,
        "weightwatch/high": high,
        "weightwatch/scale": high,
        "weightwatch/roles_seen": np.ones(4, bool),
        **_limit("weightwatch"),
    }


def _serving(count: int) -> Arrays:
    return {
        "serving/views": np.zeros(count, np.uint8),
        "serving/poolings": np.array([0, 1][:count], np.uint8),
        "serving/final_norm": np.zeros(count, bool),
        "serving/model": np.array([LAYERS, WIDTH], np.int32),
    }


def _decided() -> Arrays:
    """LCF and SIREN with a decision over seven texts of two domains."""
    scores = np.linspace(0, 3, 14).reshape(7, 2)[[3, 1, 4, 0, 5, 2, 6]]
    return {
        **_lcf(),
        **_siren(),
        **_serving(2),
        "decision/scores": scores,
        "decision/domains": np.array([0, 0, 1, -1, 0, 1, 0], np.int32),
        "decision/texts": np.arange(7),
        "decision/seen": np.arange(3),
        "serving/policy": np.array(1, np.uint8),
        "serving/promised": np.array(True),
        "serving/shadow": np.zeros(2, bool),
        "serving/domain_names": np.frombuffer(b"chatmail", np.uint8),
        "serving/domain_ends": np.array([4, 8], np.int32),
        "serving/domain_own": np.array([True, False]),
        "serving/domain_thresholds": np.array([[1.0, 0.5], [0.0, 0.0]]),
    }


def _npz(arrays: Arrays, *, packed: bool = False) -> bytes:
    """The archive as numpy writes it."""
    buffer = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _sound() -> dict[str, bytes]:
    everything = {**_lcf(), **_siren(), **_siren("agent_siren", 0), **_weightwatch()}
    return {
        "ok-delta": _npz({**_delta(), **_lcf()}, packed=True),
        "ok-familiarity": _npz(_familiarity()),
        "ok-lcf": _npz(_lcf()),
        "ok-siren": _npz(_siren()),
        "ok-span": _npz({**_lcf(), **_span()}, packed=True),
        "ok-weightwatch-half": _npz(_weightwatch(np.float16), packed=True),
        "ok-everything": _npz(everything, packed=True),
        "ok-decided": _npz(_decided(), packed=True),
        "ok-npy-2": _zip({**_members(_siren()), "siren/alpha.npy": _npy_2()}),
    }


def _unfit() -> dict[str, bytes]:
    lcf, decided = _lcf(), _decided()
    changed: dict[str, Arrays] = {
        "nan": {"lcf/mu": np.full((LAYERS, WIDTH), np.nan, np.float32)},
        "sigma": {"lcf/sigma": np.zeros((LAYERS, WIDTH), np.float32)},
        "shape": {"lcf/precision": np.eye(LAYERS + 1)},
        "dtype": {"lcf/centre": np.zeros(LAYERS, np.float32)},
        "unknown": {"lcf/more": np.zeros(2)},
    }
    found = {f"parameters-{name}": _npz({**lcf, **own}) for name, own in changed.items()}
    later: dict[str, Arrays] = {
        "ends": {"serving/domain_ends": np.array([9, 8], np.int32)},
        "domains": {"decision/domains": np.full(7, 2, np.int32)},
        "nobody": {"serving/shadow": np.ones(2, bool)},
        "model": {"serving/model": np.array([9, 9], np.int32)},
        "neurons": {"siren/neurons": np.array([0, -1, 1], np.int32)},
        "offsets": {"siren/neuron_offsets": np.array([0, 9, 3], np.int32)},
        "deep": {"siren/layers": np.array([1, LAYERS + 1], np.int32)},
        "wide": {"siren/neurons": np.array([0, WIDTH, 1], np.int32)},
    }
    places: dict[str, Arrays] = {
        "block": {"delta/layers": np.array([1, 1, LAYERS + 1], np.int32)},
        "part": {"delta/parts": np.array([0, 2, 0], np.uint8)},
        "places": {"delta/parts": np.array([1, 1, 0], np.uint8)},
    }
    for name, own in places.items():
        found[f"parameters-{name}"] = _npz({**_delta(), **lcf, **own}, packed=True)
    for name in ("deep", "wide"):  # nobody says the model's size but LCF
        found[f"parameters-{name}-alone"] = _npz({**lcf, **_siren(), **later[name]})
    return found | {
        f"parameters-{name}": _npz({**decided, **own}, packed=True) for name, own in later.items()
    }


def _npy(array: Array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _npy_2() -> bytes:
    """Version 2 of the format, with keys in another order and double quotes."""
    header = b'{"shape": (2,), "fortran_order": False, "descr": "<f4"}\n'
    data = np.array([0.5, 1], np.float32).tobytes()
    return b"\x93NUMPY\x02\0" + struct.pack("<I", len(header)) + header + data


def _raw(header: str, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header.encode() + data


def _members(arrays: Arrays) -> dict[str, bytes]:
    return {f"{name}.npy": _npy(array) for name, array in arrays.items()}


def _zip(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """Without the zip64 fields of numpy."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return buffer.getvalue()


def _patched(data: bytes, mark: bytes, offset: int, value: bytes) -> bytes:
    """The data with bytes replaced after the last occurrence of a mark."""
    start = data.rindex(mark) + offset
    return data[:start] + value + data[start + len(value) :]


def _swelling() -> bytes:
    """A member that unpacks to more bytes than its header says; the header is valid."""
    claimed = _npy(np.zeros(2))
    data = _zip({"lcf/mu.npy": claimed + bytes(4000)}, zipfile.ZIP_DEFLATED)
    for mark, first in ((b"PK\3\4", 14), (b"PK\1\2", 16)):
        data = _patched(data, mark, first, struct.pack("<I", zlib.crc32(claimed)))
        data = _patched(data, mark, first + 8, struct.pack("<I", len(claimed)))
    return data


def _local(name: str, data: bytes) -> bytes:
    """A stored member with its local header."""
    head = struct.pack("<HHHHHIII", 20, 0, 0, 0, 0x21, zlib.crc32(data), len(data), len(data))
    return b"PK\3\4" + head + struct.pack("<HH", len(name), 0) + name.encode() + data


def _directory(body: bytes, *entries: tuple[str, bytes, int]) -> bytes:
    """These bytes, followed by a directory of members: name, data, offset of the header."""
    found = b""
    for name, data, offset in entries:
        sizes = struct.pack("<III", zlib.crc32(data), len(data), len(data))
        head = _ENTRY + struct.pack("<HHHH", 0, 0, 0, 0x21) + sizes
        found += head + struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, 0, offset) + name.encode()
    sides = len(entries), len(entries), len(found), len(body), 0
    return body + found + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, *sides)


_ENTRY = b"PK\1\2" + struct.pack("<HH", 20, 20)


def _overlapping() -> dict[str, bytes]:
    """Each is refused by exactly one check; without this check all its members could be read."""
    names = "lcf/mu.npy", "lcf/mv.npy", "lcf/mw.npy"
    data = _npy(np.zeros(2))
    inner = _local(names[1], data)
    outer = _npy(np.frombuffer(inner, np.uint8))
    whole = _local(names[0], outer)
    three = [_local(name, data) for name in names]
    places = [0, len(three[0]), len(three[0] + three[1])]
    entries = [(name, data, place) for name, place in zip(names, places, strict=True)]
    over = _npy(np.frombuffer(_ENTRY, np.uint8))
    return {
        "archive-inside": _directory(
            whole, (names[0], outer, 0), (names[1], data, whole.index(inner))
        ),
        "archive-order": _directory(b"".join(three), entries[0], entries[2], entries[1]),
        "archive-before": _directory(b"gap!" + three[0], (names[0], data, 4)),
        "archive-over": _directory(_local(names[0], over)[: -len(_ENTRY)], (names[0], over, 0)),
        "archive-beyond": _patched(
            _directory(three[0], entries[0]), b"PK\3\4", 28, struct.pack("<H", 999)
        ),
    }


def _hostile() -> dict[str, bytes]:
    one = _zip({"lcf/mu.npy": _npy(np.zeros(2))})
    two = _zip({"lcf/mu.npy": _npy(np.zeros(2)), "lcf/mv.npy": _npy(np.zeros(2))})
    small = _zip({"lcf/mu.npy": _npy(np.zeros(500))}, zipfile.ZIP_DEFLATED)
    descr = "{'descr': %s, 'fortran_order': %s, 'shape': %s, }\n"
    local, entry, end = b"PK\3\4", b"PK\1\2", b"PK\5\6"
    field = struct.pack("<I", 1 << 20)
    return {
        "archive-empty": b"",
        "archive-half": one[: len(one) // 2],
        "archive-path": _zip({"../lcf/mu.npy": _npy(np.zeros(2))}),
        "archive-other": _patched(two, entry, 42, struct.pack("<I", 0)),
        "archive-twice": two.replace(b"lcf/mv", b"lcf/mu"),
        "archive-checksum": _patched(one, entry, 16, b"\0\0\0\0"),
        "archive-altered": one.replace(bytes(16), bytes(15) + b"\1"),
        "archive-own-flags": _patched(one, local, 6, b"\2\0"),
        "archive-own-method": _patched(one, local, 8, b"\x08\0"),
        "archive-own-packed": _patched(one, local, 18, struct.pack("<I", 1)),
        "archive-own-size": _patched(one, local, 22, struct.pack("<I", 1)),
        "archive-method": _patched(one, entry, 10, b"\x0c\0"),
        "archive-encrypted": _patched(one, entry, 8, b"\1\0"),
        "archive-offset": _patched(one, end, 16, field),
        "archive-zip64": _patched(one, entry, 24, b"\xff\xff\xff\xff"),
        "archive-bomb": _patched(small, entry, 24, b"\0\0\0\x7f"),
        "archive-swells": _swelling(),
        "archive-comment": _patched(one, end, 20, b"\1\0") + b"!",
        "limit-members": _patched(one, end, 8, struct.pack("<HH", 1025, 1025)),
        "limit-bytes": _zip({"lcf/mu.npy": _npy(np.zeros(1 << 18))}, zipfile.ZIP_DEFLATED),
        "array-pickled": _zip({"lcf/mu.npy": _raw(descr % ("'|O'", False, "(1,)"), b"\x80\4N.")}),
        "array-fortran": _zip({"lcf/mu.npy": _raw(descr % ("'<f4'", True, "(1,)"), bytes(4))}),
        "array-big-endian": _zip({"lcf/mu.npy": _raw(descr % ("'>f4'", False, "(1,)"), bytes(4))}),
        "array-huge": _zip({"lcf/mu.npy": _raw(descr % ("'<f4'", False, f"({10**19}, 4)"))}),
        "array-sides": _zip({"lcf/mu.npy": _raw(descr % ("'<f4'", False, f"({2**32}, {2**32})"))}),
        "array-call": _zip({"lcf/mu.npy": _raw("__import__('os')\n")}),
    }


if __name__ == "__main__":
    main()
