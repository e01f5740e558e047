"""Bundles whose files are links: Kubernetes volumes are served, other links are refused."""

import shutil
from pathlib import Path

import pytest

from layerguard.runtime import Bundle, BundleError, Guard
from layerguard.runtime.bundle.signing import load_verified, sign
from layerguard.runtime.bundle.write import seal
from layerguard.runtime.cli import main
from layerguard.runtime.packing import pack
from tests import tiny_decoder
from tests.keys import make_keys
from tests.runtime.model.test_mapped import put_outside
from tests.tiny import make_bundle, make_params


def mounted(source: Path, folder: Path, version: str = "..2026_11_30_04_00_00.1") -> Path:
    """The files of ``source`` as kubelet mounts them: each a link through ``..data``."""
    folder.mkdir(exist_ok=True)
    shutil.copytree(source, folder / version)
    (folder / "..data_tmp").symlink_to(version)
    (folder / "..data_tmp").rename(folder / "..data")
    for path in source.iterdir():
        if not (folder / path.name).is_symlink():
            (folder / path.name).symlink_to(Path("..data") / path.name)
    return folder


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A toy decoder with external weights."""
    folder = tiny_decoder.make_bundle(tmp_path / "bundle")
    manifest = Bundle.load(folder).manifest
    seal(put_outside(folder), manifest)
    return folder


@pytest.mark.parametrize("weights", ["packed", "mapped"])
def test_a_kubernetes_volume_is_served(outside: Path, tmp_path: Path, weights: str) -> None:
    """Checks and streams read files that are links through ``..data``."""
    volume = mounted(outside, tmp_path / "volume")
    guard = Guard.load(volume, threads=1, weights=weights)  # type: ignore[arg-type]
    assert guard.check("the garden").status == "ok"
    with guard.stream(prompt="the garden") as stream:
        assert stream.push(" was quiet").status == "ok"


def test_a_kubernetes_volume_is_inspected_signed_verified_and_packed(
    outside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command that reads a bundle reads a mounted one."""
    private, public = make_keys(tmp_path, "key")
    sign(outside, private)
    volume = mounted(outside, tmp_path / "volume")
    assert load_verified(volume, public).id == Bundle.load(outside).id
    assert main(["inspect", str(volume)]) == 0
    assert "signed" in capsys.readouterr().out
    wheels = [pack(path, "acme-guard", "1.0", tmp_path) for path in (volume, outside)]
    assert wheels[0] == wheels[1]


def test_an_updated_kubernetes_volume_is_the_new_bundle(tmp_path: Path) -> None:
    """The update exchanges ``..data``; a guard loaded before it refuses to open more graphs."""
    old, new = (tiny_decoder.make_bundle(tmp_path / name) for name in ("old", "new"))
    shutil.rmtree(new)
    make_bundle(new, make_params(seed=1))
    volume = mounted(old, tmp_path / "volume")
    guard = Guard.load(volume, threads=1)
    first = volume / (volume / "..data").readlink()
    (volume / "decode.onnx").unlink()
    mounted(new, volume, "..2026_11_30_05_00_00.2")
    shutil.rmtree(first)
    assert Bundle.load(volume).id == Bundle.load(new).id != guard.bundle.id
    with pytest.raises(BundleError, match="changed after it was loaded"):
        guard.stream(prompt="the garden").push(" was")


@pytest.mark.parametrize("name", ["manifest.json", "score.onnx", "detectors.npz"])
def test_links_that_leave_the_folder_are_refused(bundle: Path, tmp_path: Path, name: str) -> None:
    """A link to the right bytes outside is refused by every command, with what to do."""
    (bundle / name).rename(tmp_path / name)
    (bundle / name).symlink_to(tmp_path / name)
    with pytest.raises(BundleError, match="copy the file itself into the folder"):
        Guard.load(bundle, threads=1)
    assert main(["inspect", str(bundle)]) == 2


def test_a_link_to_the_folder_is_served(bundle: Path, tmp_path: Path) -> None:
    """The whole folder may be a link."""
    (tmp_path / "link").symlink_to(bundle)
    assert Guard.load(tmp_path / "link", threads=1).check("the garden").status == "ok"
