"""Collecting states: owners of windows, and rows that cannot be read."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layerguard.calibration.states import passes as module
from layerguard.calibration.states.collect import collect
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.errors import CalibrationError, InputError
from layerguard.runtime.model.backbone import Backbone, PooledStates
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.text.request import Request, request
from layerguard.runtime.types import Array, Tap
from tests.calibration.synthetic import sentences
from tests.tiny import LAYERS, WIDTH, make_bundle

LAST, MEAN = REGISTRY["lcf"].tap, REGISTRY["siren"].tap


def rows_of(texts: list[str]) -> list[Row]:
    """Rows with places."""
    return [Row(str(i), request(text), place=f"rows:{i + 1}") for i, text in enumerate(texts)]


@pytest.fixture(scope="module")
def backbone(exported: Path) -> Backbone:
    """The tiny network."""
    return Backbone(Bundle.load(exported), threads=1)


@pytest.mark.parametrize("tap", [LAST, MEAN])
def test_states_are_what_the_runtime_reads_for_each_text(backbone: Backbone, tap: Tap) -> None:
    """States are in the order of the rows, for any batches."""
    rows = rows_of(sentences(20, seed=0))
    found = collect(backbone, rows, tap, "rows")
    assert found.states.shape == (20, LAYERS + 1, WIDTH)
    assert found.states.dtype == np.float32
    for i, row in enumerate(rows):
        layers, _ = backbone.read([row.request], {tap}).of(tap)
        np.testing.assert_allclose(found.states[i], np.concatenate(layers), atol=1e-5)


def test_chunks_change_nothing(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Owners are indices over all rows, not within a chunk."""
    rows = rows_of(sentences(11, seed=1))
    whole = collect(backbone, rows, LAST, "rows")
    monkeypatch.setattr(module, "CHUNK", 4)
    parts = collect(backbone, rows, LAST, "rows")
    assert parts.owner.tolist() == whole.owner.tolist() == list(range(11))
    np.testing.assert_allclose(parts.states, whole.states, atol=1e-5)


def test_windows_of_a_long_text_have_one_owner(tmp_path: Path) -> None:
    """Sliding windows become rows of states; the text is the group."""
    bundle = Bundle.load(make_bundle(tmp_path / "bundle", {}, windows="sliding"))
    rows = rows_of(["the garden", "rain came over the low hills and " * 4, "a river"])
    found = collect(Backbone(bundle, threads=1), rows, MEAN, "rows")
    counts = np.bincount(found.owner)
    assert counts[0] == counts[2] == 1
    assert counts[1] > 1
    assert len(found.states) == counts.sum()


class Faulty:
    """A backbone that rejects one text and overflows on another."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self.reader = backbone.reader

    def read(self, requests: list[Request], taps: set[Tap]) -> PooledStates:
        """The real states, except for the two texts."""
        if any(item.prompt == "refused" for item in requests):
            raise InputError("the template takes no such turn")
        pooled = self._backbone.read(requests, taps)
        (windows,) = pooled.rows.values()
        bad = [
            number
            for item, mine in zip(requests, windows, strict=True)
            if item.prompt == "overflow"
            for number in mine
        ]
        layers = {key: self._overflow(value, bad) for key, value in pooled.layers.items()}
        return replace(pooled, layers=layers)

    def _overflow(self, layers: tuple[Array, ...], bad: list[int]) -> tuple[Array, ...]:
        last = layers[-1].copy()
        last[bad] = np.inf
        return (*layers[:-1], last)


def test_rows_that_cannot_be_read_are_named_and_the_others_kept(backbone: Backbone) -> None:
    """One row is rejected by the template, and one has non-finite states."""
    rows = rows_of(["the garden", "refused", "low hills", "overflow", "near a river"])
    found = collect(Faulty(backbone), rows, LAST, "rows")  # type: ignore[arg-type]
    assert [row.id for row in found.rows] == ["0", "2", "4"]
    assert found.owner.tolist() == [0, 1, 2]
    assert np.isfinite(found.states).all()
    assert any(fault.startswith("rows:2: the template takes") for fault in found.faults)
    assert any(fault.startswith("rows:4: its states are not finite") for fault in found.faults)


@pytest.mark.parametrize("bad", ["refused", "overflow"])
@pytest.mark.parametrize("place", [0, 2])
@pytest.mark.parametrize("windows", ["head-tail", "sliding"])
def test_behind_a_bad_row_every_row_keeps_its_own_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int, bad: str, windows: Any
) -> None:
    """With one bad row in each chunk, states, owner and label of every window match its row."""
    backbone = Backbone(
        Bundle.load(make_bundle(tmp_path / "bundle", {}, windows=windows)), threads=1
    )
    texts = [f"{text} {'rain came over ' * (i % 3 * 4)}" for i, text in enumerate(sentences(12, 3))]
    texts[place] = texts[place + 6] = bad
    rows = [replace(row, label=i % 2) for i, row in enumerate(rows_of(texts))]
    monkeypatch.setattr(module, "CHUNK", 6)
    found = collect(Faulty(backbone), rows, MEAN, "rows")  # type: ignore[arg-type]
    good = [row for row in rows if row.request.prompt != bad]
    assert found.rows == tuple(good)
    assert [fault.partition(": ")[0] for fault in found.faults] == [
        row.place for row in rows if row.request.prompt == bad
    ]
    start = 0
    for number, row in enumerate(good):
        layers, _ = backbone.read([row.request], {MEAN}).of(MEAN)
        own = np.stack(layers, axis=1)
        np.testing.assert_allclose(found.states[start : start + len(own)], own, atol=1e-5)
        assert found.owner[start : start + len(own)].tolist() == [number] * len(own)
        start += len(own)
    assert start == len(found.states) == len(found.owner)


def test_no_row_left_is_an_error(backbone: Backbone) -> None:
    """The message has the faults of the first rows."""
    with pytest.raises(CalibrationError, match=r"none of 1 rows could be read.*rows:1"):
        collect(Faulty(backbone), rows_of(["refused"]), LAST, "rows")  # type: ignore[arg-type]
