"""``lg_open`` on hostile archives: what Python refuses C refuses too, in printable words."""

import io
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from layerguard.runtime import Bundle
from layerguard.runtime._kernels import lib
from layerguard.runtime.bundle.serving import serving_arrays
from layerguard.runtime.types import Array
from tests.c_guard import CGuard, RefusedError, open_guard
from tests.runtime.attacks import test_archives as zips
from tests.runtime.attacks import test_arrays as arrays
from tests.tiny import LAYERS, WIDTH, make_bundle, params_of

_OPEN = {"threshold-of-another-calibration"}
"""What contradicts the manifest alone, which C does not read."""


def packed(members: dict[str, Array], method: int = zipfile.ZIP_STORED) -> bytes:
    """An archive of these arrays, as numpy writes it."""
    buffer = io.BytesIO()
    save = np.savez if method == zipfile.ZIP_STORED else np.savez_compressed
    save(buffer, allow_pickle=False, **members)  # type: ignore[arg-type]
    return buffer.getvalue()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Array]:
    """The arrays of a sound archive of LCF and SIREN."""
    bundle = Bundle.load(make_bundle(tmp_path_factory.mktemp("sound") / "bundle"))
    groups = {**bundle.params, "serving": serving_arrays(bundle.manifest)}
    return {f"{group}/{name}": a for group, own in groups.items() for name, a in own.items()}


def refused(archive: bytes | Path, *statuses: int) -> str:
    """The message of an archive that is refused with one of these statuses."""
    with pytest.raises(RefusedError) as caught:
        open_guard(archive)
    message = caught.value.message
    assert caught.value.status in statuses, (caught.value.status, message)
    assert 10 < len(message) < 255
    assert message.isprintable()
    return message


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_stored_and_deflated_archives_are_the_same_guard(
    sound: dict[str, Array], tmp_path: Path, method: int
) -> None:
    """From a file as from memory."""
    data = packed(sound, method)
    (tmp_path / "detectors.npz").write_bytes(data)
    states = np.random.default_rng(0).normal(size=(LAYERS + 1, 5, WIDTH)).astype(np.float32)
    found = [CGuard(source).score(states) for source in (data, tmp_path / "detectors.npz")]
    assert found[0] == found[1] == CGuard(packed(sound)).score(states)


@pytest.mark.parametrize("case", zips._BYTES)
def test_what_is_no_archive_is_refused(case: str) -> None:
    """Bytes that are no readable zip."""
    refused(zips._BYTES[case], lib.LG_ERR_ARCHIVE)


@pytest.mark.parametrize("case", zips._TRICKS)
def test_members_that_play_tricks_are_named(case: str) -> None:
    """Any name but <detector>/<name>.npy."""
    data = zips._zip([(zips._TRICKS[case], zips._npy(1.0))])
    assert "expected <detector>/<name>.npy" in refused(data, lib.LG_ERR_ARCHIVE)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_that_stand_twice_are_named() -> None:
    """Two members of one name could be read differently by two readers."""
    data = zips._zip([("lcf/mu.npy", zips._npy(1.0)), ("lcf/mu.npy", zips._npy(2.0))])
    assert "'lcf/mu.npy' appears twice" in refused(data, lib.LG_ERR_ARCHIVE)


@pytest.mark.parametrize("method", ["BZIP2", "LZMA"])
def test_other_packings_are_refused(method: str) -> None:
    """Nothing but stored and deflated."""
    data = zips._zip([("lcf/mu.npy", zips._npy(np.zeros(99)))], getattr(zipfile, f"ZIP_{method}"))
    assert "packed by method" in refused(data, lib.LG_ERR_ARCHIVE)


@pytest.mark.parametrize("case", zips._HEADERS)
def test_headers_that_lie_are_refused(case: str) -> None:
    """What the directory claims is checked against the member and the limits."""
    refused(zips._patched(zips._HEADERS[case][0]), lib.LG_ERR_ARCHIVE, lib.LG_ERR_LIMIT)


@pytest.mark.parametrize("case", zips._ARRAYS)
def test_hostile_arrays_are_named(case: str) -> None:
    """No array is believed: neither its header, nor its dtype, nor its order, nor its size."""
    data = zips._zip([("lcf/mu.npy", zips._ARRAYS[case][0])])
    assert "lcf/mu" in refused(data, lib.LG_ERR_ARRAY, lib.LG_ERR_ARCHIVE)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_altered_byte_fails_the_checksum(sound: dict[str, Array], method: int) -> None:
    """Wherever it lies in the data of a member."""
    data = bytearray(packed(sound, method))
    place = data.index(b"lcf/mu.npy") + 300
    data[place] ^= 1
    refused(bytes(data), lib.LG_ERR_ARCHIVE)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_no_beginning_of_an_archive_opens(sound: dict[str, Array], method: int) -> None:
    """Cut off anywhere."""
    data = packed(sound, method)
    for size in range(0, len(data), 97):
        refused(data[:size], lib.LG_ERR_ARCHIVE)


def test_bombs_are_refused_by_the_limit(sound: dict[str, Array]) -> None:
    """A megabyte of zeros in a kilobyte, and two gigabytes that are only claimed."""
    data = packed({"lcf/mu": np.zeros(1 << 18, np.float32)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(RefusedError) as caught:
        open_guard(data, max_bytes=1 << 19)
    assert caught.value.status == lib.LG_ERR_LIMIT
    assert open_guard(packed(sound), max_bytes=1 << 20)
    claims = bytearray(data)
    for start, field in ((data.index(b"PK\1\2"), 24), (0, 22)):
        claims[start + field : start + field + 4] = struct.pack("<I", 1 << 30)
    assert "cannot be" in refused(bytes(claims), lib.LG_ERR_ARCHIVE)


def test_too_many_members_are_refused() -> None:
    """By their number alone."""
    data = zips._zip([(f"lcf/x{i}.npy", b"") for i in range(1025)])
    assert "1025 members" in refused(data, lib.LG_ERR_LIMIT)


def _two() -> bytearray:
    return bytearray(zips._zip([("lcf/mu.npy", zips._npy(1.0)), ("lcf/mv.npy", zips._npy(1.0))]))


def test_members_that_overlap_are_refused() -> None:
    """Two entries of one place, or in the wrong order."""
    data = _two()
    second = data.rindex(b"PK\1\2")
    data[second + 42 : second + 46] = struct.pack("<I", 0)
    refused(bytes(data), lib.LG_ERR_ARCHIVE)
    same = bytes(data).replace(b"lcf/mv", b"lcf/mu")
    refused(same, lib.LG_ERR_ARCHIVE)


@pytest.mark.parametrize("extra", [b"before", b"PK\3\4"])
def test_nothing_lies_before_or_behind(extra: bytes) -> None:
    """No bytes that another reader could take for the archive."""
    data = bytes(_two())
    refused(extra + data, lib.LG_ERR_ARCHIVE)
    refused(data + extra, lib.LG_ERR_ARCHIVE)
    end = data.rindex(b"PK\5\6")
    refused(data[:end] + extra + data[end:], lib.LG_ERR_ARCHIVE)


def test_zip64_that_lies_is_refused() -> None:
    """Sizes of a local zip64 field are compared; a zip64 directory is refused."""
    buffer = io.BytesIO()
    np.savez(buffer, **{"lcf/mu": np.zeros(3)})
    data = buffer.getvalue()
    field = 30 + len("lcf/mu.npy") + 4
    assert struct.unpack_from("<Q", data, field)[0] == 128 + 24  # numpy forces zip64
    for offset in (field, field + 8):
        lie = bytearray(data)
        lie[offset + 5] = 1
        refused(bytes(lie), lib.LG_ERR_ARCHIVE)
    end = data.rindex(b"PK\5\6")
    start = struct.unpack_from("<I", data, end + 16)[0]
    record = b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 1, 1, end - start, start)
    locator = b"PK\6\7" + struct.pack("<IQI", 0, end, 1)
    refused(data[:end] + record + locator + data[end:], lib.LG_ERR_ARCHIVE)


def _cases() -> list[str]:
    return [case for case in arrays._CASES if case not in _OPEN]


@pytest.mark.parametrize("case", _cases())
def test_unfit_parameters_are_refused(sound: dict[str, Array], case: str) -> None:
    """Parameters that contradict each other or the model."""
    changed = {**sound, **arrays._CASES[case][0]}
    kept = {name: array for name, array in changed.items() if array is not None}
    refused(packed(kept), lib.LG_ERR_PARAMETERS)


@pytest.mark.parametrize("name", arrays._ARRAYS)
def test_wrong_arrays_are_named(sound: dict[str, Array], name: str) -> None:
    """Missing, of another dtype, of another rank, not finite."""
    array = arrays._ARRAYS[name]
    last = name in ("siren/weight_1", "siren/bias_1")
    missing = refused(packed({k: v for k, v in sound.items() if k != name}), lib.LG_ERR_PARAMETERS)
    assert name.partition("/")[0] in missing
    assert last or name in missing
    for other in (array.astype(np.uint16), array[None]):
        refused(packed({**sound, name: other}), lib.LG_ERR_PARAMETERS)
    for value in (np.nan, np.inf, -np.inf) if array.dtype.kind == "f" else ():
        broken = np.array(array)
        broken.reshape(-1)[-1] = value
        assert name in refused(packed({**sound, name: broken}), lib.LG_ERR_PARAMETERS)


def _watched() -> dict[str, Array]:
    return {f"weightwatch/{name}": array for name, array in params_of("weightwatch").items()}


_WATCHED: dict[str, dict[str, Array]] = {
    "long": {"weightwatch/directions": _watched()["weightwatch/directions"] * np.float32(2)},
    "scale": {"weightwatch/scale": np.zeros((4, 5), np.float32)},
    "ranges": {"weightwatch/low": np.ones((4, 5), np.float32)},
    "state-zero": {"weightwatch/layers": np.array([0, 1, 1, 3, 3], np.int32)},
    "order": {"weightwatch/layers": np.array([3, 1, 1, 3, 3], np.int32)},
    "twice": {"weightwatch/ranks": np.array([0, 0, 0, 0, 0], np.int32)},
    "parts": {"weightwatch/parts": np.array([0, 0, 2, 0, 1], np.uint8)},
    "ranks": {"weightwatch/ranks": np.array([-1, 1, 0, 0, 0], np.int32)},
    "empty": {"weightwatch/directions": np.zeros((0, 16), np.float32)},
}


@pytest.mark.parametrize("case", _WATCHED)
def test_unfit_directions_are_refused(case: str) -> None:
    """Directions that are no unit rows in order, and ranges that are none."""
    open_guard(packed(_watched()))
    assert "weightwatch" in refused(packed({**_watched(), **_WATCHED[case]}), lib.LG_ERR_PARAMETERS)


@pytest.mark.parametrize("name", ["views", "poolings", "final_norm", "model"])
def test_unfit_serving_is_refused(sound: dict[str, Array], name: str) -> None:
    """What the archive says of itself has to fit its detectors."""
    key = f"serving/{name}"
    for wrong in (sound[key] + np.array(77, sound[key].dtype), sound[key][:1]):
        if name != "final_norm" or wrong.shape != sound[key].shape:
            refused(packed({**sound, key: wrong}), lib.LG_ERR_PARAMETERS)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    """A folder, a pipe, and a path that is not there; none of them waits."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "missing.npz"):
        refused(path, lib.LG_ERR_FILE)
