"""Canaries: texts with known scores, which are replayed before a guard serves."""

import re
from pathlib import Path

import pytest

from layerguard.runtime import Guard
from layerguard.runtime.bundle.manifest import Canary
from layerguard.runtime.cli import main
from tests.runtime.tamper import edit_manifest, refused
from tests.tiny import make_bundle, make_params

_TEXT = "a quiet garden"


@pytest.fixture
def scores(guard: Guard) -> dict[str, float]:
    """What the canary text scores."""
    return {name: reading.score for name, reading in guard.check(_TEXT).readings.items()}


def _bundle(folder: Path, scores: dict[str, float], tolerance: float = 1e-6) -> Path:
    return make_bundle(folder / "bundle", canaries=(Canary(_TEXT, scores, tolerance),))


def test_canaries_that_agree_are_served(tmp_path: Path, scores: dict[str, float]) -> None:
    """Known scores within their tolerance let the guard serve."""
    assert Guard.load(_bundle(tmp_path, scores), threads=1).check(_TEXT).status == "ok"


@pytest.mark.parametrize("shift", [2e-3, -2e-3, 1e9])
def test_a_score_that_differs_stops_the_bundle(
    tmp_path: Path, scores: dict[str, float], shift: float
) -> None:
    """If one canary's score differs, the error gives both scores and the remedy."""
    expected = scores | {"lcf": scores["lcf"] + shift}
    bundle = _bundle(tmp_path, expected, tolerance=1e-4)
    words = (f"lcf scores {scores['lcf']:.6g} here", f"expected {expected['lcf']:.6g}", "doctor")
    (fault,) = refused(bundle, *words)
    assert "siren" not in fault


def test_tolerance_grows_with_the_score(tmp_path: Path, scores: dict[str, float]) -> None:
    """The tolerance is relative to 1 + |expected|."""
    expected = scores["lcf"] + 0.9 * 1e-3 * (1 + scores["lcf"])
    Guard.load(_bundle(tmp_path, scores | {"lcf": expected}, tolerance=1e-3), threads=1)


def test_every_canary_that_differs_is_listed(tmp_path: Path, scores: dict[str, float]) -> None:
    """All canaries are replayed, even if the first one fails."""
    wrong = {name: score + 1 for name, score in scores.items()}
    canaries = (Canary(_TEXT, wrong, 1e-6), Canary("the river", {"lcf": -1.0}, 1e-6))
    bundle = make_bundle(tmp_path / "bundle", canaries=canaries)
    assert len(refused(bundle, "'a quiet garden'", "'the river'")) == 3


def test_a_canary_of_an_unknown_detector_stops_the_bundle(tmp_path: Path) -> None:
    """A canary of a detector that the bundle lacks never matches."""
    refused(_bundle(tmp_path, {"oracle": 1.0}), "oracle scores nan here")


def test_a_score_that_is_not_finite_stops_the_bundle(tmp_path: Path) -> None:
    """No tolerance covers a NaN."""
    params = make_params()
    params["lcf"]["precision"] = -params["lcf"]["precision"]
    canaries = (Canary(_TEXT, {"lcf": 1.0}, 2e-3),)
    refused(make_bundle(tmp_path / "bundle", params, canaries=canaries), "lcf scores nan here")


def test_a_canary_that_cannot_be_checked_stops_the_bundle(tmp_path: Path) -> None:
    """A canary that the chat template refuses is named."""
    source = "{% if 'garden' in messages[0].content %}{{ raise_exception('no') }}{% endif %}a"
    canaries = (Canary(_TEXT, {}, 1e-3),)
    bundle = make_bundle(
        tmp_path / "bundle", template="chat", chat_template=source, canaries=canaries
    )
    refused(bundle, "canary 'a quiet garden' cannot be checked", "refused the messages (no)")


@pytest.mark.parametrize("tolerance", [-1e-9, 2.1e-3, 1e9])
def test_a_tolerance_beyond_what_calibration_writes_is_refused(
    tmp_path: Path, scores: dict[str, float], tolerance: float
) -> None:
    """A tolerance of any size would let any graph pass; the largest depends on the dtype."""
    bundle = _bundle(tmp_path, scores)
    edit_manifest(bundle, lambda value: value["canaries"][0].update(tolerance=tolerance))
    refused(bundle, f"canaries[0].tolerance is {tolerance:g}; expected at most 0.002")


_KEPT = pytest.mark.parametrize(
    ("kept", "missing"), [(("lcf",), "siren"), (("siren",), "lcf"), ((), "lcf, siren")]
)


@_KEPT
def test_a_detector_that_no_canary_checks_stops_the_bundle(
    tmp_path: Path, scores: dict[str, float], kept: tuple[str, ...], missing: str
) -> None:
    """At least one canary holds the score of each detector; the error says how to get it."""
    bundle = _bundle(tmp_path, {name: scores[name] for name in kept})
    refused(bundle, f"no canary holds the score of {missing};", "calibrate again")


def test_a_bundle_without_canaries_is_refused(tmp_path: Path) -> None:
    """Its graph and kernels would be believed unseen."""
    refused(
        make_bundle(tmp_path / "bundle", canaries=()), "no canary holds the score of lcf, siren"
    )


def test_the_canaries_of_different_detectors_add_up(
    tmp_path: Path, scores: dict[str, float]
) -> None:
    """One text may check one detector and another text another."""
    canaries = tuple(Canary(_TEXT, {name: score}, 1e-6) for name, score in scores.items())
    bundle = make_bundle(tmp_path / "bundle", canaries=canaries)
    assert Guard.load(bundle, threads=1).check(_TEXT).status == "ok"


@_KEPT
def test_inspect_says_what_no_canary_checks(
    tmp_path: Path,
    scores: dict[str, float],
    capsys: pytest.CaptureFixture[str],
    kept: tuple[str, ...],
    missing: str,
) -> None:
    """``inspect`` describes the bundle; ``doctor`` says that it is not served."""
    bundle = _bundle(tmp_path, {name: scores[name] for name in kept})
    assert main(["inspect", str(bundle)]) == 0
    words = f"canaries 1, weak: none holds the score of {missing}"
    assert capsys.readouterr().out.splitlines()[-1].startswith(words)
    assert main(["doctor", str(bundle)]) == 2
    assert f"no canary holds the score of {missing};" in capsys.readouterr().out


def test_inspect_and_doctor_count_the_canaries(
    tmp_path: Path, scores: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    """Where every detector is checked they say nothing more."""
    bundle = _bundle(tmp_path, scores)
    assert main(["inspect", str(bundle)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "canaries 1"
    assert main(["doctor", str(bundle)]) == 0
    assert re.search(r"canaries +1\n", capsys.readouterr().out)
