"""The C library as ``cmake --install`` leaves it: what it shows, and programs that link it."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cffi import FFI

from layerguard.runtime import linking
from layerguard.runtime.__main__ import main
from layerguard.runtime.bundle.npz import write_npz
from layerguard.runtime.detectors import REGISTRY
from tests.test_c_suite import ROOT, run, tool
from tests.tiny import LAYERS, WIDTH, params_of

SYMBOLS = ROOT / "tests" / "c" / "symbols.txt"
CONSUMER = ROOT / "tests" / "c" / "consumer"
NAMES = ("agent_siren", "familiarity", "lcf", "siren", "weightwatch")


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the library was installed."""
    build, target = tmp_path_factory.mktemp("build"), tmp_path_factory.mktemp("prefix")
    run(tool("cmake"), "-S", str(ROOT), "-B", str(build))
    run(tool("cmake"), "--build", str(build), "--parallel", "2")
    run(tool("cmake"), "--install", str(build), "--prefix", str(target))
    return target


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``detectors.npz`` of all detectors."""
    path = tmp_path_factory.mktemp("npz") / "detectors.npz"
    arrays = {f"{n}/{key}": value for n in NAMES for key, value in params_of(n).items()}
    write_npz(path, arrays)
    return path


def expected() -> list[str]:
    """What the consumer prints, from Python's scores."""
    count = (LAYERS + 1) * WIDTH
    states = (np.arange(count) % 7 - 3).astype(np.float32).reshape(LAYERS + 1, 1, WIDTH)
    scores = [REGISTRY[name].bind(params_of(name)).score(states).score for name in NAMES]
    return [f"{name} {score.hex()}" for name, score in zip(NAMES, scores, strict=True)]


def numbers(printed: str) -> list[str]:
    """The lines of scores, each number as Python writes it."""
    lines = [line.split() for line in printed.splitlines()[:-1]]
    return [f"{name} {float.fromhex(score).hex()}" for name, score in lines]


def runs(program: Path, archive: Path) -> str:
    """What a program prints that flags nothing or something, and does not fail."""
    done = subprocess.run([program, archive], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def test_the_library_shows_its_header_and_nothing_else(prefix: Path) -> None:
    """The dynamic symbols are those checked in, and each is declared for users."""
    shown = run("nm", "-D", "--defined-only", str(prefix / "lib" / "liblayerguard.so"))
    found = sorted(line.split()[2] for line in shown.splitlines())
    assert found == SYMBOLS.read_text().split()
    header = (ROOT / "csrc" / "layerguard_api.h").read_text()
    declared = re.findall(r"(?m)^(?:lg_status|size_t|void|char const) \*?(lg_\w+)\(", header)
    assert sorted(declared) == found


def test_the_header_has_no_preprocessor_lines() -> None:
    """So that cffi and other readers of declarations can take it as it is."""
    lines = (ROOT / "csrc" / "layerguard_api.h").read_text().splitlines()
    assert not [line for line in lines if line.lstrip().startswith("#")]


def test_another_language_reads_the_declarations(prefix: Path, archive: Path) -> None:
    """Those of the installed header, taken as they stand, call the installed library."""
    ffi = FFI()
    ffi.cdef((prefix / "include" / "layerguard_api.h").read_text())
    library: Any = ffi.dlopen(str(prefix / "lib" / "liblayerguard.so"))
    guard = ffi.new("lg_guard **")
    assert library.lg_open(str(archive).encode(), ffi.NULL, guard) == library.LG_OK
    info = ffi.new("lg_guard_info *", {"struct_size": ffi.sizeof("lg_guard_info")})
    assert library.lg_guard_describe(guard[0], info) == library.LG_OK
    assert (info.detectors, info.states, info.width) == (len(NAMES), LAYERS + 1, WIDTH)
    library.lg_close(guard[0])


def test_the_shared_library_names_its_version(prefix: Path) -> None:
    """Programs ask for the major version, and find it."""
    shown = run("readelf", "-d", str(prefix / "lib" / "liblayerguard.so"))
    assert "soname: [liblayerguard.so.0]" in shown
    assert (prefix / "lib" / "liblayerguard.so.0").exists()


def test_cmake_finds_and_links_it(prefix: Path, archive: Path, tmp_path: Path) -> None:
    """Shared and static programs print Python's scores to the bit."""
    found = f"-DCMAKE_PREFIX_PATH={prefix}"
    run(tool("cmake"), "-S", str(CONSUMER), "-B", str(tmp_path), found)
    run(tool("cmake"), "--build", str(tmp_path))
    assert numbers(runs(tmp_path / "shared", archive)) == expected()
    assert numbers(runs(tmp_path / "static", archive)) == expected()


@pytest.mark.skipif(not shutil.which("pkg-config"), reason="pkg-config is not installed here")
@pytest.mark.parametrize("static", [False, True])
def test_pkg_config_links_it(prefix: Path, archive: Path, tmp_path: Path, *, static: bool) -> None:
    """By the installed file, from wherever the prefix lies."""
    folder = prefix / "lib" / "pkgconfig"
    asked = ["--cflags", "--libs", *(["--static"] if static else [])]
    said = run("env", f"PKG_CONFIG_PATH={folder}", "pkg-config", *asked, "layerguard")
    flags = shlex.split(said.replace("-llayerguard", "-l:liblayerguard.a") if static else said)
    flags += [] if static else [f"-Wl,-rpath,{prefix / 'lib'}"]
    program = tmp_path / "program"
    run("cc", "-std=c11", str(CONSUMER / "consumer.c"), "-o", str(program), *flags)
    assert numbers(runs(program, archive)) == expected()


def test_what_cannot_be_opened_is_said_in_words(prefix: Path, tmp_path: Path) -> None:
    """Status and message name the fault."""
    program, library = tmp_path / "program", prefix / "lib" / "liblayerguard.a"
    run("cc", f"-I{prefix / 'include'}", str(CONSUMER / "consumer.c"), "-o", str(program),
        str(library), "-lz", "-lm")  # fmt: skip
    (tmp_path / "words.npz").write_text("no archive at all, but long enough to have been one")
    for name, word in (("missing.npz", "No such file"), ("words.npz", "does not end like a zip")):
        command = [program, tmp_path / name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, word in done.stdout) == (2, True), done.stdout


@pytest.mark.parametrize("static", [False, True])
def test_the_installed_package_says_how_to_link(
    archive: Path, tmp_path: Path, *, static: bool
) -> None:
    """Header and libraries travel in the wheel; its printed flags build a program that runs."""
    asked = ["--cflags", "--libs", *(["--static"] if static else [])]
    flags = shlex.split(run(sys.executable, "-m", "layerguard.runtime", *asked))
    program = tmp_path / "program"
    run("cc", "-std=c11", str(CONSUMER / "consumer.c"), "-o", str(program), *flags)
    assert numbers(runs(program, archive)) == expected()


def test_what_is_not_installed_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 3 where no library lies there, 2 where nothing was asked for."""
    assert main([]) == 2
    assert main(["--prefix"]) == 0
    assert Path(capsys.readouterr().out.strip(), "include", "layerguard.h").is_file()
    monkeypatch.setattr(linking, "HEADER", Path("include", "nowhere.h"))
    assert main(["--libs"]) == 3
    assert "install the wheel" in capsys.readouterr().err
