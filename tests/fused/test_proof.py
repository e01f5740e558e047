"""The proof of a fused graph: a graph that differs from the runtime is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper, numpy_helper

from layerguard.exporter.fused import proof as module
from layerguard.exporter.fused.graph import Design
from layerguard.exporter.fused.pipeline import fuse
from layerguard.exporter.fused.proof import prove
from layerguard.runtime.bundle.fused import FusedProof
from layerguard.runtime.errors import ExportError
from layerguard.runtime.text.request import Request, request
from tests.fused.bundles import FRESH, calibrated, load

_TEXTS = [request(text) for text in FRESH[:9]]


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fused bundle; tests must not change it."""
    path = calibrated(tmp_path_factory.mktemp("proof") / "bundle", ["lcf", "siren"])
    fuse(path, threads=1)
    return path


def proved(fused: Path, folder: Path, plant: Callable[[ModelProto], None] | None) -> FusedProof:
    """The proof of the bundle's graph after a change."""
    path = Path(shutil.copytree(fused, folder / "bundle"))
    guard = load(path)
    if plant:
        model = onnx.load(str(path / "fused.onnx"))
        plant(model)
        onnx.save(model, str(path / "fused.onnx"))
    return prove(path / "fused.onnx", Design.of(guard.bundle), guard, _TEXTS)


def scaled(name: str, factor: float) -> Callable[[ModelProto], None]:
    """Multiply an output by ``factor``; the flags do not change."""

    def plant(model: ModelProto) -> None:
        place, node = next((i, n) for i, n in enumerate(model.graph.node) if name in n.output)
        node.output[0] = "planted/before"
        value = numpy_helper.from_array(np.array(factor), "planted/factor")
        model.graph.initializer.append(value)
        after = helper.make_node("Mul", ["planted/before", "planted/factor"], [name])
        model.graph.node.insert(place + 1, after)

    return plant


def threshold(name: str, value: float) -> Callable[[ModelProto], None]:
    """Change a threshold in the graph; the scores do not change."""

    def plant(model: ModelProto) -> None:
        for item in model.graph.initializer:
            if item.name == f"{name}_threshold":
                item.CopyFrom(numpy_helper.from_array(np.array(value), item.name))

    return plant


def test_the_graph_itself_is_proved(fused: Path, tmp_path: Path) -> None:
    """The unchanged graph passes with every text alone and in batches."""
    found = proved(fused, tmp_path, None)
    assert (found.texts, found.flips, found.tolerance) == (9, 0, 1e-5)
    assert set(found.largest) == {"lcf", "siren"}
    assert 0 <= max(found.largest.values()) <= 1e-5


@pytest.mark.parametrize("name", ["lcf", "siren"])
def test_scores_that_differ_are_refused(fused: Path, tmp_path: Path, name: str) -> None:
    """A difference of 0.1 % of one detector without a flip is refused; the detector is named."""
    with pytest.raises(ExportError, match=rf"scores \({name} by .*\) and 0 verdicts"):
        proved(fused, tmp_path, scaled(f"{name}_score", 1.001))


@pytest.mark.parametrize("name", ["lcf", "siren"])
def test_scores_that_are_no_numbers_are_refused(fused: Path, tmp_path: Path, name: str) -> None:
    """The graph gives NaN but the runtime a finite score."""
    with pytest.raises(ExportError, match=rf"scores \({name} by nan\)"):
        proved(fused, tmp_path, scaled(f"{name}_score", np.nan))


@pytest.mark.parametrize("value", [-1e9, 1e9])
def test_verdicts_that_differ_are_refused(fused: Path, tmp_path: Path, value: float) -> None:
    """The graph flags more texts, or fewer, although all scores agree."""
    with pytest.raises(ExportError, match=r"within the tolerance\) and [1-9]\d* verdicts"):
        proved(fused, tmp_path, threshold("siren", value))


def test_the_tolerance_itself_is_allowed(
    fused: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A difference equal to the tolerance passes; with the next smaller tolerance it fails."""
    plant = scaled("lcf_score", 1 + 3e-6)
    largest = proved(fused, tmp_path / "first", plant).largest["lcf"]
    assert 1e-6 < largest < 1e-5
    monkeypatch.setitem(module.TOLERANCES, "float32", largest)
    assert proved(fused, tmp_path / "second", plant).largest["lcf"] == largest
    monkeypatch.setitem(module.TOLERANCES, "float32", np.nextafter(largest, 0))
    with pytest.raises(ExportError, match="lcf by"):
        proved(fused, tmp_path / "third", plant)


def test_nothing_to_prove_it_on_is_no_proof(fused: Path, tmp_path: Path) -> None:
    """Texts that are read in several windows are left out; without others the proof fails."""
    path = Path(shutil.copytree(fused, tmp_path / "bundle"))
    manifest = json.loads((path / "manifest.json").read_bytes())
    manifest["text"] |= {"windows": "sliding", "max_windows": 4}
    (path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    guard = load(path)
    graph, design = path / "fused.onnx", Design.of(guard.bundle)
    long = request(" ".join(FRESH))
    assert module.feeds(guard, design, [_TEXTS[0], long]) is None
    texts: list[Request]
    for texts in ([], [long], [long, long]):
        with pytest.raises(ExportError, match="expected one: pass shorter texts"):
            prove(graph, design, guard, texts)
    assert prove(graph, design, guard, [long, *_TEXTS[:2], long]).texts == 2
