"""The same hundred texts in other languages: Python's scores and verdicts, new thresholds too.

What these need comes from npm and Debian; where it cannot be had they are skipped.
"""

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from layerguard.exporter.fused.pipeline import fuse
from layerguard.runtime.types import Array
from tests import onnxruntime_c
from tests.fused.bundles import FRESH, calibrated, expected, fed, load
from tests.fused.embed import fetch
from tests.fused.graphs import agree, run
from tests.test_examples import LANGUAGES, build, scored

_HERE = Path(__file__).with_name("embed")
Answers = Mapping[str, Array]


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fused decoder with three detectors; tests must not change it."""
    path = calibrated(tmp_path_factory.mktemp("languages") / "bundle")
    fuse(path, threads=1)
    return path


@pytest.fixture(scope="module")
def node() -> list[str]:
    """The command of the Node program."""
    if shutil.which("node") is None:
        pytest.skip("no node here")
    try:
        fetch.bring_node()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"onnxruntime-node could not be had from npm ({error})")
    return ["node", str(_HERE / "fused.mjs")]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The C++ program, built against the library of the onnxruntime package."""
    if shutil.which("g++") is None:
        pytest.skip("no g++ here")
    folder = tmp_path_factory.mktemp("cpp")
    try:
        include, library = onnxruntime_c.headers(), onnxruntime_c.library(folder)
    except onnxruntime_c.AbsentError as error:
        pytest.skip(str(error))
    program = folder / "fused"
    source = str(_HERE / "fused.cpp")
    command = ["g++", "-std=c++17", "-O1", f"-I{include}", source, "-o", str(program), *library]
    subprocess.run(command, check=True)
    return [str(program)]


def _answers(command: Sequence[str], path: Path, cases: Sequence[Answers], folder: Path) -> Answers:
    """The answers of a program to the cases, in order."""
    kinds = {"i": "int64", "f": "float64"}
    blocks = []
    for case in cases:
        lines = [
            " ".join([name, kinds[a.dtype.kind], *map(str, a.shape), ":", *map(str, a.flat)])
            for name, a in case.items()
        ]
        blocks.append("\n".join(lines) + "\n\n")
    (folder / "cases.txt").write_text("".join(blocks), encoding="utf-8")
    done = subprocess.run(
        [*command, str(path / "fused.onnx"), str(folder / "cases.txt"), str(fetch.FOLDER)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}


@pytest.mark.parametrize("language", ["compiled", "node"])
def test_a_hundred_texts(
    language: str, fused: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Each text alone: scores agree within the tolerance, p-values and flags exactly."""
    command = request.getfixturevalue(language)
    guard = load(fused)
    found = _answers(command, fused, [fed(guard, [text]) for text in FRESH], tmp_path)
    agree(found, expected(guard, FRESH))


@pytest.mark.parametrize("language", ["compiled", "node"])
def test_a_padded_batch(
    language: str, fused: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """All texts in one batch."""
    command = request.getfixturevalue(language)
    guard = load(fused)
    agree(_answers(command, fused, [fed(guard, FRESH)], tmp_path), expected(guard, FRESH))


def test_thresholds_are_fed_in_cpp(compiled: list[str], fused: Path, tmp_path: Path) -> None:
    """Thresholds that are fed are used in C++ as in Python."""
    given = fed(load(fused), FRESH)
    names = ("lcf_threshold", "siren_threshold", "weightwatch_threshold")
    lax = {**given, **{name: np.array(1e9) for name in names}}
    found = _answers(compiled, fused, [lax], tmp_path)
    np.testing.assert_array_equal(found["flagged"], run(fused, lax)["flagged"])
    assert not found["flagged"].any()


def test_node_keeps_the_graphs_own_thresholds(node: list[str], fused: Path, tmp_path: Path) -> None:
    """The Node binding ignores optional inputs; other thresholds must be compared with scores."""
    given = fed(load(fused), FRESH)
    lax = {**given, "lcf_threshold": np.array(1e9)}
    found = _answers(node, fused, [lax], tmp_path)
    np.testing.assert_array_equal(found["flagged"], run(fused, given)["flagged"])


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_same_texts_by_their_states(language: str, tmp_path: Path) -> None:
    """C, C++, Rust and Go give Python's bits and verdicts on the states of a hundred texts."""
    guard = load(calibrated(tmp_path / "bundle", ("lcf", "weightwatch")))
    named = {(o.kind, o.layer): o.name for o in guard.bundle.manifest.graphs["score"].outputs}
    outputs = [named["state", layer] for layer in range(guard.bundle.manifest.model.layers + 1)]
    files, wanted = [], []
    for i, text in enumerate(FRESH):
        ids = np.array([guard.backbone.reader.tokenizer.encode(text).ids])
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        states = np.concatenate(guard.backbone.session.run(outputs, feeds))
        files.append(tmp_path / f"{i:02}.f32")
        states.tofile(files[-1])
        verdict = guard.score_states(states)
        wanted.append((verdict.flagged, [r.score for _, r in sorted(verdict.readings.items())]))
    program = build(language, tmp_path)
    assert scored(program, guard.bundle.path / "detectors.npz", files) == wanted
    assert {flagged for flagged, _ in wanted} == {True, False}
