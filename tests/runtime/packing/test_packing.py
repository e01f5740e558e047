"""A packed bundle: the same bytes every time, installed by pip, found and scored by name."""

import base64
import csv
import hashlib
import io
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from layerguard.runtime import Bundle, BundleError, Guard, InputError
from layerguard.runtime.bundle.files import card_of
from layerguard.runtime.bundle.installed import find_bundle, installed
from layerguard.runtime.cli import main
from layerguard.runtime.packing import pack
from layerguard.runtime.packing.wheel import Wheel
from tests.runtime.tamper import edit_manifest
from tests.tiny import make_bundle

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Unpack wheels onto the path, as an installer does with a pure one; gives that folder."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    monkeypatch.chdir(tmp_path)

    def install(*wheels: Path) -> Path:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(site)
        return site

    return install


def test_the_same_bundle_gives_the_same_bytes(sound: Path, tmp_path: Path) -> None:
    """Packed twice, from copies made at other times, a bundle gives one wheel."""
    again = make_bundle(tmp_path / "again")
    out = tmp_path / "out"
    out.mkdir()
    first = pack(sound, "Acme_Guard", "1.2", tmp_path)
    second = pack(again, "acme-guard", "1.2", out)
    assert first.name == second.name == "acme_guard-1.2-py3-none-any.whl"
    assert first.read_bytes() == second.read_bytes()
    assert [path.name for path in out.iterdir()] == [second.name]


def test_the_record_is_true(sound: Path, tmp_path: Path) -> None:
    """RECORD lists every member with size and hash, and itself without."""
    with zipfile.ZipFile(pack(sound, "acme-guard", "1.2.0", tmp_path)) as archive:
        record = archive.read("acme_guard-1.2.0.dist-info/RECORD").decode()
        rows = list(csv.reader(io.StringIO(record)))
        assert [row[0] for row in rows] == archive.namelist()
        for name, digest, size in rows[:-1]:
            data = archive.read(name)
            code = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            assert (digest, int(size)) == (f"sha256={code}", len(data))
        assert rows[-1][1:] == ["", ""]


def test_pip_installs_it(sound: Path, tmp_path: Path) -> None:
    """The wheel installs offline with pip, and the installed bundle is valid."""
    wheel = pack(sound, "acme-guard", "1.2.0", tmp_path)
    site = tmp_path / "site"
    command = ("pip", "install", "--quiet", "--no-deps", "--no-index", "--target", site, wheel)
    subprocess.run([sys.executable, "-m", *map(str, command)], check=True)
    assert Bundle.load(site / "layerguard_bundles" / "acme_guard").id == Bundle.load(sound).id


def test_a_guard_is_loaded_by_name(install: Install, sound: Path, tmp_path: Path) -> None:
    """Any spelling of the name works; the verdict equals that of the folder."""
    install(pack(sound, "acme-guard", "1.2.0", tmp_path))
    expected = Guard.load(sound, threads=1).check("the garden")
    for name in ("acme-guard", "Acme_Guard"):
        verdict = Guard.load(name, threads=1).check("the garden")
        assert verdict.bundle_id == expected.bundle_id
        assert verdict.readings == expected.readings


def test_a_folder_wins(install: Install, sound: Path, strict: Path, tmp_path: Path) -> None:
    """A folder of that name takes precedence over the installed bundle."""
    install(pack(sound, "acme-guard", "1.2.0", tmp_path))
    Path("acme-guard").symlink_to(strict)
    assert Guard.load("acme-guard", threads=1).bundle.id == Bundle.load(strict).id


def test_an_installed_bundle_is_verified(install: Install, sound: Path, tmp_path: Path) -> None:
    """A file that was altered after the installation is named, and nothing is served."""
    site = install(pack(sound, "acme-guard", "1.2.0", tmp_path))
    graph = site / "layerguard_bundles/acme_guard/score.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    with pytest.raises(BundleError, match=r"score\.onnx has sha256"):
        Guard.load("acme-guard")


def test_an_unknown_name_shows_those_known(install: Install, sound: Path, tmp_path: Path) -> None:
    """The error says what is installed, where a folder was looked for, and what to do."""
    install(pack(sound, "acme-guard", "1.2.0", tmp_path))
    with pytest.raises(BundleError, match=r"(?s)'acme-gard' in .*installed: acme-guard.*pip") as e:
        Guard.load("acme-gard")
    assert str(tmp_path) in str(e.value)


def test_a_package_provides_only_its_own_bundle(
    install: Install, sound: Path, strict: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A package that claims another one's name does not take its place; ``list`` names it."""
    site = install(
        pack(strict, "acme-guard", "1.2.0", tmp_path), pack(sound, "aaa-guard", "1.0", tmp_path)
    )
    points = site / "aaa_guard-1.0.dist-info/entry_points.txt"
    points.write_text(points.read_text().replace("aaa-guard", "acme-guard"))
    assert Bundle.load("acme-guard").id == Bundle.load(strict).id
    assert main(["list"]) == 2
    assert "package 'aaa-guard' provides a bundle of another name" in capsys.readouterr().err
    shutil.rmtree(site / "acme_guard-1.2.0.dist-info")
    with pytest.raises(BundleError, match="package 'aaa-guard' provides a bundle of another name"):
        find_bundle("acme-guard")


@pytest.mark.parametrize(
    "value", ["layerguard_bundles.other_guard", "..other", "layerguard_bundles", "json", "etc"]
)
def test_an_entry_point_stays_in_its_package(
    install: Install, sound: Path, tmp_path: Path, value: str
) -> None:
    """The folder must be one whose manifest the package itself has installed."""
    site = install(
        pack(sound, "acme-guard", "1.2.0", tmp_path), pack(sound, "other-guard", "1.0", tmp_path)
    )
    points = site / "acme_guard-1.2.0.dist-info/entry_points.txt"
    points.write_text(f"[layerguard.bundles]\nacme-guard = {value}\n")
    with pytest.raises(BundleError, match="names a folder that is not its own"):
        find_bundle("acme-guard")


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("pip", "part of Python or of its installers"),
        ("json", "part of Python"),
        ("numpy", "depends on"),
        ("ONNXruntime", "depends on"),
        ("layerguard", "the package itself"),
        ("pluggy", "installed here and is not a bundle"),
    ],
)
def test_names_of_other_packages_are_refused(
    sound: Path, tmp_path: Path, name: str, word: str
) -> None:
    """A wheel of such a name would replace the package, or be mistaken for it."""
    with pytest.raises(InputError, match=f"--name: found {name.lower()}, which .*{word}"):
        pack(sound, name, "1.0", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_newer_version_of_an_installed_bundle_is_packed(
    install: Install, sound: Path, tmp_path: Path
) -> None:
    """A name that belongs to a bundle here is free for its next version."""
    install(pack(sound, "acme-guard", "1.2.0", tmp_path))
    assert pack(sound, "acme-guard", "1.3.0", tmp_path).is_file()


def test_finding_runs_nothing(install: Install, sound: Path, tmp_path: Path) -> None:
    """The entry point is read and never imported, because its code is not verified."""
    site = install(pack(sound, "acme-guard", "1.2.0", tmp_path))
    (site / "layerguard_bundles/__init__.py").write_text("raise SystemExit('ran')")
    assert Bundle.load("acme-guard").id == Bundle.load(sound).id
    assert "layerguard_bundles" not in sys.modules


@pytest.mark.parametrize("text", ["./acme-guard", "acme-guard/", "/acme-guard", "..", ""])
def test_paths_are_no_names(install: Install, sound: Path, tmp_path: Path, text: str) -> None:
    """A path is looked up on disk only."""
    install(pack(sound, "acme-guard", "1.2.0", tmp_path))
    assert find_bundle(text) == Path(text)


@pytest.mark.parametrize(
    ("name", "version", "words"),
    [
        ("-acme", "1.0", ["--name", "-acme"]),
        ("acme/../x", "1.0", ["--name"]),
        ("acme\nEvil: yes", "1.0", ["--name"]),
        ("acme", "one", ["--version", "PEP 440"]),
        ("", "", ["--name", "--version"]),
    ],
)
def test_wrong_names_and_versions_are_refused(
    sound: Path, tmp_path: Path, name: str, version: str, words: list[str]
) -> None:
    """All at once, and before anything is written."""
    with pytest.raises(InputError) as caught:
        pack(sound, name, version, tmp_path)
    assert all(word in str(caught.value) for word in words)
    assert not list(tmp_path.iterdir())


def test_a_faulty_bundle_is_not_packed(bundle: Path, tmp_path: Path) -> None:
    """The bundle is verified first, and no partial wheel is left."""
    (bundle / "notes.txt").write_text("x")
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(BundleError, match=r"notes\.txt"):
        pack(bundle, "acme-guard", "1.2.0", out)
    assert not list(out.iterdir())


def test_an_uncalibrated_bundle_is_not_packed(tmp_path: Path) -> None:
    """An uncalibrated bundle cannot be served."""
    bundle = make_bundle(tmp_path / "bundle", {})
    with pytest.raises(BundleError, match="it has no detectors yet"):
        pack(bundle, "acme-guard", "1.2.0", tmp_path)


def test_a_file_that_changes_meanwhile_is_not_packed(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every hash is compared again while the file is written."""
    write = Wheel.add_file

    def meddle(self: Wheel, name: str, source: Path) -> str:
        if name.endswith("tokenizer.json"):
            source.write_bytes(b"{}")
        return write(self, name, source)

    monkeypatch.setattr(Wheel, "add_file", meddle)
    with pytest.raises(BundleError, match=r"tokenizer\.json has 2 bytes; the manifest says"):
        pack(bundle, "acme-guard", "1.2.0", tmp_path)


def test_a_model_cannot_write_metadata(bundle: Path, tmp_path: Path) -> None:
    """A line break in the model's name does not add a header."""
    edit_manifest(bundle, lambda value: value["model"].update(id="x\nRequires-Dist: evil"))
    wheel = pack(bundle, "acme-guard", "1.2.0", tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read("acme_guard-1.2.0.dist-info/METADATA").decode()
    assert [line for line in metadata.splitlines() if line.startswith("Requires-Dist")] == [
        f"Requires-Dist: layerguard>={version('layerguard')}"
    ]


def test_a_wheel_is_not_written_into_the_bundle(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default folder is refused if it is the bundle itself."""
    monkeypatch.chdir(bundle)
    with pytest.raises(InputError, match="is the bundle itself, which may hold no other file"):
        pack(Path(), "acme-guard", "1.2.0", Path())
    assert Bundle.load(bundle)


def test_large_files_are_packed(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """zip64 is used for large files; the test lowers its threshold to 100 bytes."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    wheel = pack(sound, "acme-guard", "1.2.0", tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        assert archive.testzip() is None


def test_no_folder_to_write_to_is_an_error(sound: Path, tmp_path: Path) -> None:
    """It is named, with what to do."""
    with pytest.raises(InputError, match="none is not a folder; expected an existing one"):
        pack(sound, "acme-guard", "1.2.0", tmp_path / "none")


def test_commands(
    install: Install, sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pack says what it wrote; list, score, inspect and doctor know the name."""
    call = ["pack", str(sound), "--name", "acme-guard", "--version", "1.2.0", "-o", str(tmp_path)]
    assert main(call) == 0
    wheel = tmp_path / "acme_guard-1.2.0-py3-none-any.whl"
    assert capsys.readouterr().out == f"wrote {wheel} ({card_of(wheel).bytes} bytes)\n"
    install(wheel)
    identity = Bundle.load(sound).id
    assert main(["list"]) == 0
    line = capsys.readouterr().out.splitlines()[-1].split()
    assert line == ["acme-guard", "1.2.0", identity, "no", "lcf,", "siren"]
    assert main(["list", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["name"], said["bundle_id"], said["fault"]) == ("acme-guard", identity, None)
    assert main(["score", "acme-guard", "the garden", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bundle_id"] == identity
    for command in ("inspect", "doctor"):
        assert main([command, "acme-guard"]) == 0
        assert identity in capsys.readouterr().out


@pytest.mark.usefixtures("install")
def test_nothing_installed(capsys: pytest.CaptureFixture[str]) -> None:
    """List says so, and how that changes; as JSON it prints nothing."""
    assert installed() == []
    assert main(["list"]) == 0
    assert "layerguard pack" in capsys.readouterr().out
    assert main(["list", "--json"]) == 0
    assert capsys.readouterr().out == ""


def test_list_shows_what_is_not_sound(
    install: Install, sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A broken bundle does not hide the others; the exit code is 2."""
    site = install(
        pack(sound, "acme-guard", "1.2.0", tmp_path), pack(sound, "other-guard", "1.0", tmp_path)
    )
    (site / "layerguard_bundles/acme_guard/manifest.json").write_text("{")
    assert main(["list"]) == 2
    printed = capsys.readouterr()
    lines = printed.out.splitlines()[-2:]
    assert lines[0].endswith("not valid")
    assert "acme-guard is not valid" in printed.err
    assert "run `layerguard inspect acme-guard`" in printed.err
    assert lines[1].split()[:2] == ["other-guard", "1.0"]


def test_commands_that_write_refuse_a_name(
    install: Install, sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An installed bundle is managed by pip; the message says to copy it."""
    site = install(pack(sound, "acme-guard", "1.2.0", tmp_path))
    folder = site / "layerguard_bundles/acme_guard"
    for wrong in (
        ["recalibrate", "acme-guard", "--shadow", "rows.jsonl"],
        ["calibrate", "acme-guard", "--clean", "rows.jsonl"],
        ["import-siren", "head", "acme-guard"],
        ["fuse", "acme-guard"],
    ):
        assert main(wrong) == 2
        assert f"cp -r {folder} acme-guard" in capsys.readouterr().err


def test_a_signature_that_is_a_link_is_not_packed(sound: Path, tmp_path: Path) -> None:
    """A link could put files of the packing user into the wheel."""
    secret = tmp_path / "secret"
    secret.write_text("secret")
    bundle = Path(shutil.copytree(sound, tmp_path / "bundle"))
    (bundle / "model.sig").symlink_to(secret)
    with pytest.raises(BundleError, match=r"model\.sig is not a file"):
        pack(bundle, "acme-guard", "1.2.0", tmp_path)


def test_a_guard_is_not_packed_as_layerguard(sound: Path, tmp_path: Path) -> None:
    """It would replace the package itself."""
    with pytest.raises(InputError, match="is the package itself"):
        pack(sound, "LayerGuard", "9", tmp_path)
