"""A bundle is what its bytes are: the same inputs give the same bytes, other bytes another id."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerguard.runtime import Bundle, Guard
from layerguard.runtime.bundle.manifest import Manifest, read_manifest
from layerguard.runtime.bundle.npz import read_npz, write_npz
from layerguard.runtime.bundle.write import carry_over, replacing
from layerguard.runtime.types import Array
from tests.runtime.tamper import edit_manifest, put
from tests.tiny import add_canaries, make_bundle, make_params


def _content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_inputs_give_the_same_bytes(sound: Path, tmp_path: Path) -> None:
    """Made twice, a bundle is the same to the byte, and so is its id."""
    again = make_bundle(tmp_path / "again")
    contents = _content(sound), _content(again)
    for name in ("manifest.json", "detectors.npz", "tokenizer.json", "score.onnx"):
        assert contents[0][name] == contents[1][name], name
    assert Bundle.load(sound).id == Bundle.load(again).id


def test_verdicts_carry_the_id(guard: Guard, sound: Path) -> None:
    """A verdict can be traced to the bundle that gave it."""
    assert guard.check("the garden").bundle_id == Bundle.load(sound).id == guard.bundle.id


_CHANGES: dict[str, Any] = {
    "score.onnx": lambda folder: put(folder, "score.onnx", b"other"),
    "tokenizer.json": lambda folder: put(folder, "tokenizer.json", b"{}"),
    "manifest": lambda folder: edit_manifest(folder, lambda v: v["versions"].update(numpy="2")),
}


@pytest.mark.parametrize("name", _CHANGES)
def test_other_content_is_another_id(bundle: Path, name: str) -> None:
    """Whichever file differs, the id does."""
    before = Bundle.load(bundle).id
    _CHANGES[name](bundle)
    assert Bundle.load(bundle).id != before


_DTYPES = ["float64", "float32", "float16", "int64", "int32", "uint16", "uint8", "bool"]
_ARRAYS = st.dictionaries(
    st.from_regex(r"[a-z0-9_]{1,8}/[a-z0-9_]{1,8}", fullmatch=True),
    st.builds(
        lambda shape, dtype, seed: np.asarray(
            np.random.default_rng(seed).normal(size=shape) * 9, dtype
        ),
        st.lists(st.integers(0, 5), max_size=3).map(tuple),
        st.sampled_from(_DTYPES[:5]),
        st.integers(0, 9),
    ),
    max_size=6,
)


@settings(max_examples=30)
@given(arrays=_ARRAYS)
def test_arrays_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, arrays: dict[str, Array]
) -> None:
    """Every dtype and shape, scalars and empty arrays too, survives the archive unchanged."""
    path = tmp_path_factory.mktemp("npz") / "detectors.npz"
    write_npz(path, arrays)
    found, faults = read_npz(path)
    assert faults == []
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()


def test_the_archive_is_the_same_however_its_arrays_came(tmp_path: Path) -> None:
    """Neither order, nor memory layout, nor time of day is in the bytes."""
    arrays = {"b/x": np.arange(6.0).reshape(2, 3), "a/y": np.array(1.0), "a/x": np.arange(3)}
    twisted = {"a/x": arrays["a/x"][::-1][::-1], "a/y": arrays["a/y"]}
    twisted["b/x"] = np.asfortranarray(arrays["b/x"])
    write_npz(tmp_path / "one.npz", arrays)
    code = (
        "import sys, time, numpy as np; time.sleep(2.1);"
        "from pathlib import Path; from layerguard.runtime.bundle.npz import write_npz;"
        "write_npz(Path(sys.argv[1]), {'a/x': np.arange(3), 'b/x': np.arange(6.0).reshape(2, 3),"
        "'a/y': np.array(1.0)})"
    )
    write_npz(tmp_path / "two.npz", twisted)
    environment = os.environ | {"TZ": "Asia/Tokyo", "PYTHONHASHSEED": "1"}
    later = [sys.executable, "-c", code, str(tmp_path / "three.npz")]
    subprocess.run(later, env=environment, check=True)
    bytes_of = {(tmp_path / f"{name}.npz").read_bytes() for name in ("one", "two", "three")}
    assert len(bytes_of) == 1


def test_frozen_arrays_cannot_be_written_to(sound: Path) -> None:
    """What was verified stays what is served."""
    params = Bundle.load(sound).params
    assert not any(array.flags.writeable for mine in params.values() for array in mine.values())


def test_a_manifest_survives_its_own_json(sound: Path) -> None:
    """Reading what was written gives the same manifest, and writing that the same bytes."""
    data = (sound / "manifest.json").read_bytes()
    manifest, faults = read_manifest(data)
    assert faults == []
    assert isinstance(manifest, Manifest)
    assert manifest.to_bytes() == data


def test_recalibration_keeps_the_files_it_does_not_change(bundle: Path) -> None:
    """Carried over, the graph is the same file, and the old bundle is untouched until the end."""
    manifest = Bundle.load(bundle).manifest
    inode = (bundle / "score.onnx").stat().st_ino
    with replacing(bundle) as folder:
        carry_over(bundle, folder, ["score.onnx", "tokenizer.json"])
        arrays = make_params(seed=1)
        write_npz(
            folder / "detectors.npz",
            {f"{d}/{name}": a for d, mine in arrays.items() for name, a in mine.items()},
        )
        sealed = add_canaries(folder, manifest)
        assert Bundle.load(bundle).manifest == manifest
    assert Bundle.load(bundle).manifest == sealed
    assert (bundle / "score.onnx").stat().st_ino == inode
    assert Guard.load(bundle, threads=1).check("the garden").status == "ok"


def test_files_are_copied_where_links_are_not_to_be_had(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another disk takes copies."""

    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    carry_over(bundle, tmp_path, ["score.onnx"])
    assert (tmp_path / "score.onnx").read_bytes() == (bundle / "score.onnx").read_bytes()
