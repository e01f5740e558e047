"""The examples in four languages build, and give Python's scores to the bit on the same states."""

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from layerguard.runtime.bundle.npz import write_npz
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.linking import compile_flags, folder, link_flags
from tests.test_c_suite import ROOT
from tests.tiny import LAYERS, WIDTH, params_of

EXAMPLES = ROOT / "csrc" / "examples"
NAMES = ("agent_siren", "familiarity", "lcf", "siren", "weightwatch")
TEXTS, MOST_LINES = 100, 59
STRICT = ("-Wall", "-Wextra", "-Werror", "-pedantic")

Build = Callable[[Path, Path], tuple[list[str], Mapping[str, str]]]
"""The command and the environment that make a program of a source."""


def _c(source: Path, program: Path) -> tuple[list[str], Mapping[str, str]]:
    flags = [*compile_flags(), *link_flags()]
    return ["cc", "-std=c11", *STRICT, str(source), "-o", str(program), *flags], {}


def _cpp(source: Path, program: Path) -> tuple[list[str], Mapping[str, str]]:
    flags = [*compile_flags(), *link_flags()]
    return ["c++", "-std=c++17", *STRICT, str(source), "-o", str(program), *flags], {}


def _rust(source: Path, program: Path) -> tuple[list[str], Mapping[str, str]]:
    libraries = str(folder() / "lib")
    found = ["-L", libraries, "-C", f"link-arg=-Wl,-rpath,{libraries}"]
    return ["rustc", "-D", "warnings", str(source), "-o", str(program), *found], {}


def _go(source: Path, program: Path) -> tuple[list[str], Mapping[str, str]]:
    flags = {"CGO_CFLAGS": " ".join(compile_flags()), "CGO_LDFLAGS": " ".join(link_flags())}
    cache = {"GOCACHE": str(program.parent / "cache"), "GO111MODULE": "off", "CGO_ENABLED": "1"}
    return ["go", "build", "-o", str(program), str(source)], {**flags, **cache}


LANGUAGES: Mapping[str, Build] = {"c": _c, "cpp": _cpp, "rs": _rust, "go": _go}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All detectors, with thresholds amid the scores."""
    arrays = {}
    for name, threshold in zip(NAMES, (0.6, 3.0, 6.0, 0.5, 5.0), strict=True):
        params = {**params_of(name), "threshold": np.array(threshold)}
        arrays |= {f"{name}/{key}": value for key, value in params.items()}
    path = tmp_path_factory.mktemp("npz") / "detectors.npz"
    write_npz(path, arrays)
    return path


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """States of texts of one to twelve tokens, each in a file."""
    rng = np.random.default_rng(0)
    home = tmp_path_factory.mktemp("states")
    paths = []
    for i in range(TEXTS):
        states = rng.normal(size=(LAYERS + 1, 1 + i % 12, WIDTH)) * rng.uniform(0.2, 2)
        paths.append(home / f"{i:02}.f32")
        states.astype("<f4").tofile(paths[-1])
    return paths


@pytest.fixture(scope="module")
def expected(archive: Path, texts: list[Path]) -> list[tuple[bool, list[float]]]:
    """Python's verdicts and scores."""
    with np.load(archive) as arrays:
        params = {n: {k.partition("/")[2]: arrays[k] for k in arrays if k.startswith(f"{n}/")}
                  for n in NAMES}  # fmt: skip
    detectors = [REGISTRY[name].bind(params[name]) for name in NAMES]
    found = []
    for path in texts:
        states = np.fromfile(path, "<f4").reshape(LAYERS + 1, -1, WIDTH)
        readings = [detector.score(states) for detector in detectors]
        deciding = [r for r in readings if REGISTRY[r.detector].decides]
        found.append((any(r.flagged for r in deciding), [r.score for r in readings]))
    return found


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_example_gives_pythons_scores(
    language: str,
    archive: Path,
    texts: list[Path],
    expected: list[tuple[bool, list[float]]],
    tmp_path: Path,
) -> None:
    """Bit for bit on a hundred texts, with the same verdicts; some are flagged, and some not."""
    program = build(language, tmp_path)
    assert scored(program, archive, texts) == expected
    assert {flagged for flagged, _ in expected} == {True, False}
    cut = tmp_path / "cut.f32"
    cut.write_bytes(texts[5].read_bytes()[:-4])
    done = subprocess.run([program, archive, cut], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stdout == "", "a file that is cut would be read at wrong places"


def build(language: str, folder: Path) -> Path:
    """The example's program; skips where its compiler is absent."""
    program = folder / "score"
    command, more = LANGUAGES[language](EXAMPLES / f"score.{language}", program)
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]} here; Debian has gcc, g++, rustc and golang-go")
    built = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **more}, check=False
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return program


def scored(program: Path, archive: Path, texts: list[Path]) -> list[tuple[bool, list[float]]]:
    """Verdict and scores of each file of states."""
    done = subprocess.run([program, archive, *texts], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    printed = [line.split() for line in done.stdout.splitlines()]
    return [(flag == "1", list(map(float, scores))) for flag, *scores in printed]


def test_examples_are_short() -> None:
    """A reader takes each in at a glance."""
    sources = sorted(path.name for path in EXAMPLES.glob("score.*"))
    assert sources == sorted(f"score.{language}" for language in LANGUAGES)
    for name in sources:
        assert len((EXAMPLES / name).read_text().splitlines()) <= MOST_LINES
