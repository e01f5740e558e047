"""What a cluster merges: parts of files, kept states, summaries, metrics. Needs no Ray."""

import importlib
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from layerguard.calibration.states.chosen import ChosenRows, Harmful
from layerguard.calibration.states.collect import Collector
from layerguard.calibration.states.passes import added, chunks, read_once, reduced
from layerguard.calibration.states.recording import Recording
from layerguard.calibration.thresholds.text_scores import TextScorer
from layerguard.runtime import Bundle
from layerguard.runtime.binding import bind_detectors
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.model.backbone import Backbone
from layerguard.runtime.rows.jsonl import Row, read_rows
from layerguard.runtime.text.request import request
from layerguard.runtime.types import ADDED, Tap, TokenBudget
from layerguard.scale.ray import splits as splits_module
from layerguard.scale.ray.exposition import joined
from layerguard.scale.ray.outputs import written
from layerguard.scale.ray.splits import splits
from layerguard.scale.ray.summary import Scored
from tests import tiny
from tests.calibration.synthetic import sentences


def test_the_runtime_never_imports_ray() -> None:
    """Nor does the calibration, nor the package for Ray before a name of it is used."""
    code = (
        "import sys, layerguard.runtime, layerguard.calibration.guard.calibrate, "
        "layerguard.runtime.server.app, layerguard.scale.ray;"
        "print(sorted(name for name in sys.modules if name.partition('.')[0] == 'ray'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(("module", "missing"), [("workers", "ray.data"), ("serving", "ray")])
def test_the_import_error_says_what_to_install(
    module: str, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the command."""
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, f"layerguard.scale.ray.{module}", raising=False)
    with pytest.raises(ImportError, match=r"run: pip install 'layerguard\[ray\]'"):
        importlib.import_module(f"layerguard.scale.ray.{module}")


@given(
    contents=some.lists(
        some.sampled_from(['{"text": "the garden"}', '{"text": "rain"}', "", "{", "  ", "[]"]),
        max_size=30,
    ),
    end=some.sampled_from(["", "\n"]),
    count=some.integers(1, 8),
)
def test_parts_of_a_file_are_the_file(
    tmp_path_factory: Any, contents: list[str], end: str, count: int
) -> None:
    """The same rows, ids, places and faults, wherever it is cut."""
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("\ufeff" + '{"text": "a"}\n' + "\n".join(contents) + end, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splits_module, "LINES", count)
        parts = [rows for split in splits([path]) for rows in split.rows()]
    whole = read_rows([path])
    assert tuple(row for part in parts for row in part.good) == whole.good
    assert tuple(fault for part in parts for fault in part.faults) == whole.faults


def test_a_line_without_an_end_is_one_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it is, the lines after it keep their numbers."""
    monkeypatch.setattr(splits_module, "_BYTES", 16)
    monkeypatch.setattr(splits_module, "LINES", 1)
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"text": "{"a" * 100}"}}\n{{"text": "b"}}\n', encoding="utf-8")
    assert [(split.first, split.start) for split in splits([path])] == [(1, 0), (2, 113)]


def test_parquet_is_cut_at_its_row_groups(tmp_path: Path) -> None:
    """Rows are numbered through the file."""
    pa = pytest.importorskip("pyarrow", reason="needs layerguard[parquet]")
    parquet = importlib.import_module("pyarrow.parquet")
    rows: list[dict[str, Any]] = [{"text": text} for text in sentences(25, seed=0)]
    rows[13] = {"text": None, "label": 1}
    path = tmp_path / "rows.parquet"
    parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=10)
    parts = [part for split in splits([path]) for part in split.rows()]
    assert [len(part.good) for part in parts] == [10, 9, 5]
    whole = read_rows([path])
    assert tuple(row for part in parts for row in part.good) == whole.good
    assert [fault.partition(": ")[0] for fault in whole.faults] == [f"{path}:14"]


@pytest.mark.parametrize("name", list(REGISTRY))
def test_a_detector_survives_pickling(name: str) -> None:
    """It is bound again, reads the same tokens, and gives the same readings."""
    kind = REGISTRY[name]
    tap = Tap("content", "mean", budget=TokenBudget("sliding", 64)) if name == "siren" else None
    detector = kind.bind(tiny.params_of(name), tap)
    copy = pickle.loads(pickle.dumps(detector))
    rng = np.random.default_rng(0)
    if detector.tap.pooling == ADDED:  # its input is not part of the states
        rows = [rng.normal(size=(2, len(tiny.CHANGED))).astype(np.float32)]
        assert copy.score_pooled(rows) == detector.score_pooled(rows)
    else:
        states = rng.normal(size=(tiny.LAYERS + 1, 5, tiny.WIDTH))
        single = list(states.astype(np.float32))
        assert copy.score(single) == detector.score(single)
    assert (copy.tap.source, copy.tap.group[:2]) == (detector.tap.source, detector.tap.group[:2])


def test_a_pass_in_parts_gives_the_same_bits(tmp_path: Path) -> None:
    """Reductions and what they keep are pickled, as between processes."""
    bundle = Bundle.load(tiny.make_bundle(tmp_path / "bundle"))
    backbone = Backbone(bundle, threads=1)
    texts = [*sentences(150, seed=1), *(f"ignore all {text}" for text in sentences(150, seed=2))]
    rows = [Row(str(i), request(text), label=i % 2) for i, text in enumerate(texts)]

    def readers() -> tuple[Collector, ChosenRows, TextScorer, TextScorer]:
        recording = Recording(len(rows))
        scorer, harmful = TextScorer(bind_detectors(bundle)), TextScorer(bind_detectors(bundle))
        tap = REGISTRY["lcf"].tap
        return Collector(tap, recording), ChosenRows(harmful, Harmful()), scorer, harmful

    alone, apart = readers(), readers()
    read_once(backbone, rows, alone[:3], "rows")
    sent = pickle.dumps([reader.reduction for reader in apart[:3]])
    parts = [pickle.dumps(reduced(backbone, chunk, pickle.loads(sent))) for chunk in chunks(rows)]
    added(rows, apart[:3], map(pickle.loads, parts), "rows")
    for ours, theirs in zip(apart[2:], alone[2:], strict=True):
        assert ours.scored == theirs.scored  # type: ignore[union-attr]
    assert len(alone[3].scored) == 150
    states = [reader.recorded(len(rows), ()) for reader in (apart[0], alone[0])]
    for (_, ours), (_, theirs) in zip(*(one.states.blocks() for one in states), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def _scored(scores: list[float], flagged: list[bool]) -> Scored:
    readings = [SimpleNamespace(score=score, status="ok") for score in scores]
    verdicts = [
        (None, SimpleNamespace(flagged=flag, status="ok", readings={"one": reading}))
        for reading, flag in zip(readings, flagged, strict=True)
    ]
    return Scored.of(verdicts, ())  # type: ignore[arg-type]


@given(
    scores=some.lists(some.floats(-1e3, 1e3), min_size=2, max_size=40),
    cut=some.integers(0, 40),
)
def test_merged_summaries_are_the_summary_of_all(scores: list[float], cut: int) -> None:
    """Counts, means and deviations, to 1e-6."""
    flags = [score > 0 for score in scores]
    whole = _scored(scores, flags)
    merged = Scored()
    for part in (slice(None, cut), slice(cut, None)):
        merged = merged.merged(_scored(scores[part], flags[part]))
    assert (merged.rows, merged.flagged) == (whole.rows, whole.flagged) == (len(scores), sum(flags))
    assert merged.scores["one"].mean == pytest.approx(np.mean(scores), abs=1e-6)
    assert merged.scores["one"].deviation == pytest.approx(np.std(scores), abs=1e-6)


def test_a_score_that_is_not_finite_is_not_part_of_the_mean() -> None:
    """It is counted, and flagged."""
    bad = SimpleNamespace(score=float("nan"), status="invalid")
    one = SimpleNamespace(flagged=True, status="invalid", readings={"one": bad})
    found = Scored.of([(None, one)], ()).merged(_scored([2.0], [False]))  # type: ignore[list-item]
    assert (found.rows, found.flagged, found.invalid) == (2, 1, 1)
    assert found.scores["one"].mean.tolist() == [2.0]


def test_metrics_of_replicas_are_one_text() -> None:
    """Each family once, each sample with its replica."""
    text = (
        "# HELP layerguard_requests_total Texts\n# TYPE layerguard_requests_total counter\n"
        'layerguard_requests_total{contract="a"} 3.0\n'
    )
    found = joined({"x": text, "y": text.replace("3.0", "4.0")}).decode()
    assert found.count("# TYPE layerguard_requests_total counter") == 1
    assert 'layerguard_requests_total{contract="a",replica="x"} 3.0' in found
    assert 'layerguard_requests_total{contract="a",replica="y"} 4.0' in found


def test_a_file_has_its_name_once_it_is_complete(tmp_path: Path) -> None:
    """An error leaves nothing, and an earlier file as it was."""
    path = tmp_path / "out.jsonl"
    with written(path) as write:
        write(b"first\n")
        assert not path.exists()
    assert path.read_bytes() == b"first\n"

    def fail() -> None:
        with written(path) as write:
            write(b"second\n")
            raise RuntimeError("a worker failed")

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == b"first\n"
    assert list(tmp_path.iterdir()) == [path]
