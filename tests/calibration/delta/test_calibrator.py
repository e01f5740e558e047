"""From rows to a served detector, where the graph gives what tuning adds."""

from pathlib import Path

import numpy as np
import pytest

from layerguard.calibration import calibrate, delta
from layerguard.calibration.calibrator import Inputs, Options
from layerguard.calibration.defaults import Mode
from layerguard.calibration.delta.calibrator import DELTA
from layerguard.calibration.guard import fit_detectors
from layerguard.runtime import Bundle, Guard
from layerguard.runtime.bundle.manifest import OutputCard
from layerguard.runtime.cli import main
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.text.request import request
from layerguard.runtime.types import Tap
from tests.calibration.delta.values import clean_values, matrices
from tests.calibration.synthetic import sentences, write_rows
from tests.tiny import CHANGED, make_bundle, params_of

LAYERS = [layer for layer, _ in CHANGED]
PARTS = [part for _, part in CHANGED]


@pytest.fixture
def tuned(tmp_path: Path) -> Path:
    """A bundle whose graph gives what tuning adds; it holds the detector, which is fitted anew."""
    return make_bundle(tmp_path / "bundle", {"delta": params_of("delta")})


@pytest.fixture
def _only_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_detectors, "CALIBRATORS", (DELTA,))


def _rows(count: int, seed: int = 0, source: str | None = None) -> list[Row]:
    return [Row(text, request(text), label=0, source=source) for text in sentences(count, seed)]


def test_held_out_scores_have_the_arithmetic_of_serving() -> None:
    """The bound detector gives a row that was held out the same bits; its layer is the evidence."""
    values, sources = clean_values(60, 5), ["web", "chat", "mail"] * 20
    held_out = delta.train(values, *matrices(), "by-source", sources=sources).held_out
    for source in set(sources):
        held = np.array(sources) == source
        params = delta.fit(values[~held], *matrices(), target_fpr=0.1)
        readings = REGISTRY["delta"].bind(params).score_pooled([values[held]])
        assert [reading.score for reading in readings] == held_out[held].tolist()
    last = readings[-1].evidence[0]
    k = int(((values[held][-1] - params["centre"]) / params["scale"]).argmax())
    assert (last.value, last.layer) == (readings[-1].score, params["layers"][k])


def test_it_is_fitted_beside_the_others_and_serves(
    tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command prints its line; served scores are the held-out ones but for the fold's fit."""
    clean = write_rows(tmp_path / "clean.jsonl", [{"text": text} for text in sentences(60, 0)])
    arguments = ["calibrate", str(tuned), "--clean", str(clean), "--target-fpr", "0.1"]
    assert main([*arguments, "--threads", "1"]) == 0
    printed = capsys.readouterr().out
    assert "delta: cross-fit, 60 rows, threshold " in printed
    assert "guard: flags where any of delta, lcf does" in printed
    bundle = Bundle.load(tuned)
    card, params = bundle.manifest.detectors["delta"], bundle.params["delta"]
    assert (card.view, card.pooling) == ("prompt", "delta")
    reason = "the clean rows name 0 sources of 30 texts or more; by-source needs 4"
    assert card.settings == {"matrices": 3, "folds": 20, "method_reason": reason}
    assert (params["layers"].tolist(), params["parts"].tolist()) == (LAYERS, PARTS)
    served = [
        verdict.readings["delta"].score
        for verdict in Guard.load(tuned, threads=1).check_batch(sentences(60, 0))
    ]
    np.testing.assert_allclose(np.sort(served), params["clean_scores"], atol=1)
    assert not np.array_equal(np.sort(served), params["clean_scores"])
    assert np.corrcoef(np.sort(served), params["clean_scores"])[0, 1] > 0.9


@pytest.mark.usefixtures("_only_this_one")
@pytest.mark.parametrize(
    ("mode", "method"),
    [("cross-fit", "cross-fit"), ("loo", "cross-fit"), ("reference", "cross-fit"),
     ("by-source", "by-source")],
)  # fmt: skip
def test_it_has_no_published_rule(tuned: Path, mode: Mode, method: str) -> None:
    """``loo`` and ``reference`` are cross-fitting, with the threshold of a target."""
    rows = [row for i, name in enumerate(("web", "chat", "mail")) for row in _rows(40, i, name)]
    card = calibrate(tuned, clean=rows, target_fpr=0.1, mode=mode, threads=1).detectors["delta"]
    assert (card.method, card.target_fpr) == (method, 0.1)
    assert card.fpr_interval != (0, 1)
    assert ("sources" in card.settings) == (mode == "by-source")


@pytest.mark.usefixtures("_only_this_one")
def test_it_earns_its_vote_on_sources_that_it_has_not_seen(tuned: Path) -> None:
    """Each source is left out, and the fit without it scores its texts."""
    rows = [row for i, name in enumerate(("web", "chat")) for row in _rows(60, i, name)]
    calibrate(tuned, clean=rows, target_fpr=0.1, threads=1)
    votes = Bundle.load(tuned).manifest.votes
    assert votes is not None
    vote = votes.detectors["delta"]
    assert set(vote.unseen) == {"web", "chat"} == set(vote.refitted)
    assert vote.decides


def test_it_applies_to_clean_rows_where_the_graph_gives_what_tuning_adds() -> None:
    """Neither labelled rows nor a graph of an untuned model are enough."""
    rows, added = _rows(3), [OutputCard("delta_o_proj_01", "delta_o_proj", 1)]
    for clean, outputs, expected in ((rows, added, True), ([], added, False), (rows, [], False)):
        given = Inputs(clean, rows, None, None, Options(), outputs)  # type: ignore[arg-type]
        assert DELTA.applies(given) == expected


def test_it_reads_the_prompt_as_the_model_receives_it() -> None:
    """The tap is the detector's own."""
    given = Inputs((), (), None, None, Options(), ())  # type: ignore[arg-type]
    assert DELTA.prepare(given).tap == REGISTRY["delta"].tap == Tap("prompt", "delta")
