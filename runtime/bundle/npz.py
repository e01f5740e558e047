"""Reads and writes ``detectors.npz``, a zip archive of plain arrays, treated as untrusted input.

All size limits are checked on the headers of the archive and the arrays before memory is allocated.
"""

import math
import re
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.lib import format as npy

from layerguard.runtime.types import Array

MAX_MEMBERS = 1_024
MAX_BYTES = 2 << 30
"""Maximum of all arrays together, far above the largest published head (224 MB)."""

_DTYPES = ("float64", "float32", "float16", "int64", "int32", "uint16", "uint8", "bool")
_MEMBER = re.compile(r"[a-z0-9_]{1,64}/[a-z0-9_]{1,64}\.npy")
_MAX_HEADER = 4_096


def write_npz(path: Path, arrays: Mapping[str, Array]) -> None:
    """Store ``arrays`` sorted by name: the same arrays give the same bytes."""
    named: dict[str, Any] = {name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}
    for name, array in arrays.items():  # ascontiguousarray changed scalars to one dimension
        named[name] = named[name].reshape(array.shape)
    np.savez(path, allow_pickle=False, **named)


def read_npz(path: Path) -> tuple[dict[str, Array], list[str]]:
    """The arrays of the archive by ``<detector>/<name>``, and every fault found."""
    faults: list[str] = []
    arrays: dict[str, Array] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            faults += _archive_faults(members)
            if faults:
                return {}, faults
            for member in members:
                array, fault = _read_member(archive, member)
                if fault:
                    faults.append(f"{path.name}: {member.filename}: {fault}")
                elif array is not None:
                    arrays[member.filename.removesuffix(".npy")] = array
    except Exception as error:  # noqa: BLE001  a hostile archive can raise any error
        faults.append(f"{path.name} {_unreadable(error)}")
    return arrays, faults


def _unreadable(error: Exception) -> str:
    return f"cannot be read ({type(error).__name__}: {error}); calibrate again"


def _archive_faults(members: list[zipfile.ZipInfo]) -> list[str]:
    if len(members) > MAX_MEMBERS:
        return [f"detectors.npz: {len(members)} members; expected at most {MAX_MEMBERS}"]
    times = Counter(member.filename for member in members)
    faults = [
        f"detectors.npz: member {name[:80]!r}; expected <detector>/<name>.npy"
        for name in times
        if not _MEMBER.fullmatch(name)
    ]
    faults += [
        f"detectors.npz: member {name[:80]!r} appears {count} times; expected once"
        for name, count in times.items()
        if count > 1
    ]
    total = sum(member.file_size for member in members)
    if total > MAX_BYTES:
        faults.append(f"detectors.npz: {total} bytes unpacked; expected at most {MAX_BYTES}")
    faults += [
        f"detectors.npz: member {m.filename[:80]!r} is encrypted or packed by method "
        f"{m.compress_type}; expected stored without compression: calibrate again"
        for m in members
        if m.flag_bits & 1 or m.compress_type != zipfile.ZIP_STORED
    ]
    return faults


def _read_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo
) -> tuple[Array | None, str | None]:
    try:
        with archive.open(member) as file:
            return _read_array(cast("BinaryIO", file), member.file_size)
    except Exception as error:  # noqa: BLE001  a hostile array can raise any error
        return None, _unreadable(error)


def _read_array(file: BinaryIO, size: int) -> tuple[Array | None, str | None]:
    """One array or its fault; memory is allocated after the header is checked."""
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        return None, f"npy version {version}; expected 1.0 or 2.0"
    reader = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = reader(file, max_header_size=_MAX_HEADER)
    if dtype.name not in _DTYPES or dtype.hasobject or dtype.byteorder == ">":
        return None, f"dtype {dtype}; expected one of {', '.join(_DTYPES)}, little-endian"
    count = math.prod(shape)
    data = size - file.tell()
    if fortran or any(side < 0 for side in shape) or count * dtype.itemsize != data:
        return None, f"shape {shape} of {dtype} and {data} bytes; expected C order and equal sizes"
    buffer = file.read(data)
    if len(buffer) != data:
        return None, f"truncated: {len(buffer)} of {data} bytes"
    return np.frombuffer(buffer, dtype=dtype).reshape(shape), None
