"""Collecting states: windows know their rows, and rows that cannot be read are named."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from layerguard.calibration import collect as module
from layerguard.calibration.collect import collect
from layerguard.runtime.backbone import Backbone, PooledStates
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.errors import CalibrationError, InputError
from layerguard.runtime.rows import Row
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
    """In the rows' order, whatever batches were made of them."""
    rows = rows_of(sentences(20, seed=0))
    found = collect(backbone, rows, tap, "rows")
    assert found.states.shape == (20, LAYERS + 1, WIDTH)
    assert found.states.dtype == np.float32
    for i, row in enumerate(rows):
        layers, _ = backbone.read([row.request], {tap}).of(tap)
        np.testing.assert_allclose(found.states[i], np.concatenate(layers), atol=1e-5)


def test_chunks_change_nothing(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Owners are counted over all rows, not within a chunk."""
    rows = rows_of(sentences(11, seed=1))
    whole = collect(backbone, rows, LAST, "rows")
    monkeypatch.setattr(module, "_CHUNK", 4)
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
    """A backbone that refuses one text and overflows on another."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone

    def read(self, requests: list[Request], taps: set[Tap]) -> PooledStates:
        """The real answer, but for the two texts."""
        if any(item.prompt == "refused" for item in requests):
            raise InputError("the template takes no such turn")
        pooled = self._backbone.read(requests, taps)
        layers = {key: self._overflow(value, requests) for key, value in pooled.layers.items()}
        return replace(pooled, layers=layers)

    def _overflow(self, layers: tuple[Array, ...], requests: list[Request]) -> tuple[Array, ...]:
        last = layers[-1].copy()
        last[[item.prompt == "overflow" for item in requests]] = np.inf
        return (*layers[:-1], last)


def test_rows_that_cannot_be_read_are_named_and_the_others_kept(backbone: Backbone) -> None:
    """One the template refuses, one whose states are not finite."""
    rows = rows_of(["the garden", "refused", "low hills", "overflow", "near a river"])
    found = collect(Faulty(backbone), rows, LAST, "rows")  # type: ignore[arg-type]
    assert [row.id for row in found.rows] == ["0", "2", "4"]
    assert found.owner.tolist() == [0, 1, 2]
    assert np.isfinite(found.states).all()
    assert any(fault.startswith("rows:2: the template takes") for fault in found.faults)
    assert any(fault.startswith("rows:4: its states are not finite") for fault in found.faults)


def test_no_row_left_is_an_error(backbone: Backbone) -> None:
    """It says why the first of them went."""
    with pytest.raises(CalibrationError, match=r"none of 1 rows could be read.*rows:1"):
        collect(Faulty(backbone), rows_of(["refused"]), LAST, "rows")  # type: ignore[arg-type]
