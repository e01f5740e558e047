"""Texts that are unlike the calibration rows: the verdict's fields, and what happens with them."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from layerguard.runtime import Guard
from layerguard.runtime.decision.policy import Decision
from layerguard.runtime.errors import InputError
from layerguard.runtime.types import OnUnfamiliar, Verdict
from tests.runtime.attacks.test_decisions import decided
from tests.runtime.tamper import edit_manifest
from tests.runtime.test_decision import calibrated, readings
from tests.tiny import make_bundle, make_params, params_of

TEXT = "the garden was quiet"


def with_distance(folder: Path, threshold: float, **settings: str) -> Path:
    """A bundle with a distance beside LCF and SIREN; by a threshold of -1 all is unfamiliar."""
    distance = params_of("familiarity") | {
        "threshold": np.array(threshold),
        "clean_scores": np.arange(1.0, 100.0),
    }
    path = make_bundle(folder, make_params() | {"familiarity": distance})
    return edit_manifest(path, lambda m: m["detectors"]["familiarity"]["settings"].update(settings))


@pytest.fixture
def strange(tmp_path: Path) -> Path:
    """A bundle to which every text is unfamiliar."""
    return with_distance(tmp_path / "bundle", -1.0)


def test_a_familiar_text_has_its_p_value(tmp_path: Path) -> None:
    """The reading is beside the others and in shadow; the status is ok."""
    guard = Guard.load(with_distance(tmp_path / "bundle", 1e3), threads=1)
    verdict = guard.check(TEXT)
    reading = verdict.readings["familiarity"]
    assert verdict.familiarity == reading.p_value < 1
    assert (verdict.unfamiliar, verdict.status, verdict.ask) == (False, "ok", False)
    assert verdict.shadow == ("familiarity",)
    assert guard.monitor.unfamiliar == 0


def test_a_bundle_without_it_says_nothing(guard: Guard) -> None:
    """The field is None."""
    verdict = guard.check(TEXT)
    assert (verdict.familiarity, verdict.unfamiliar, verdict.status) == (None, False, "ok")


@pytest.mark.parametrize(
    ("on_unfamiliar", "flagged", "ask"),
    [(None, False, False), ("allow", False, False), ("flag", True, False), ("ask", False, True)],
)
def test_the_policy_for_unfamiliar_texts(
    strange: Path, on_unfamiliar: OnUnfamiliar | None, flagged: bool, ask: bool
) -> None:
    """Allowed by default; the monitor counts it apart from the detectors' flags."""
    guard = Guard.load(strange, threads=1, on_unfamiliar=on_unfamiliar)
    verdict = guard.check(TEXT)
    assert (verdict.unfamiliar, verdict.status) == (True, "unfamiliar")
    assert (verdict.flagged, verdict.ask) == (flagged, ask)
    assert "unlike the calibration rows (p = " in verdict.reason
    assert verdict.to_json()["ask"] == ask
    assert (guard.monitor.n, guard.monitor.flagged, guard.monitor.unfamiliar) == (1, 0, 1)
    with guard.stream(prompt=TEXT) as stream:
        last = stream.push("rain came")
    assert (last.flagged, last.ask, last.status) == (flagged, ask, "unfamiliar")
    assert (guard.monitor.n, guard.monitor.flagged, guard.monitor.unfamiliar) == (2, 0, 2)


def test_the_bundle_has_a_policy_of_its_own(tmp_path: Path) -> None:
    """``Guard.load`` may replace it, also after pickling; another word is refused."""
    path = with_distance(tmp_path / "bundle", -1.0, on_unfamiliar="ask")
    assert Guard.load(path, threads=1).check(TEXT).ask
    replaced = Guard.load(path, threads=1, on_unfamiliar="flag")
    for guard in (replaced, pickle.loads(pickle.dumps(replaced))):
        assert (guard.check(TEXT).flagged, guard.check(TEXT).ask) == (True, False)
    with pytest.raises(InputError, match="on_unfamiliar: found 'maybe'; expected allow, flag"):
        Guard.load(path, on_unfamiliar="maybe")  # type: ignore[arg-type]


def test_the_thresholds_are_the_most_cautious(sound: Path) -> None:
    """An unfamiliar text has the largest threshold of each detector, of all traffic and domains."""
    bundle = calibrated(sound)
    decision = Decision(bundle)
    assert bundle.manifest.decision is not None
    own = bundle.manifest.decision.domains["chat"].thresholds
    decision._distance = "familiarity"
    distance = replace(readings((5.0, 0.0), (1.0, 1.0))["lcf"], detector="familiarity")
    found = readings((9.0, 9.0), (9e9, 0.5))
    decision.limits[None] = replace(
        decision.limits[None], thresholds={"lcf": 9e9, "siren": own["siren"] / 2 - 1}
    )
    cautious = decision.decide(found | {"familiarity": distance})
    assert cautious.unfamiliar
    assert {name: reading.threshold for name, reading in cautious.readings.items()} == {
        "lcf": 9e9,
        "siren": own["siren"],
        "familiarity": 1.0,
    }


def test_drift_comes_first(strange: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The field still says that the text is unfamiliar."""
    guard = Guard.load(strange, threads=1)
    monkeypatch.setattr(guard.monitor, "drift", lambda _: (9, 100))
    verdict = guard.check(TEXT)
    assert (verdict.status, verdict.unfamiliar) == ("drifting", True)


def test_a_verdict_that_contradicts_itself_is_refused(strange: Path) -> None:
    """Neither a flag without a reason, nor a question that nobody asked for."""
    verdict = Guard.load(strange, threads=1).check(TEXT)
    with pytest.raises(ValueError, match="flagged is True"):
        replace(verdict, flagged=True)
    with pytest.raises(ValueError, match="ask is True"):
        replace(verdict, ask=True)
    assert isinstance(replace(verdict, on_unfamiliar="flag", flagged=True), Verdict)


def test_a_bundle_with_domains_alone_is_served_as_before(bundle: Path) -> None:
    """Without a distance no text is unfamiliar."""
    guard = Guard.load(decided(bundle), threads=1)
    assert guard.check(TEXT, domain="chat").familiarity is None
