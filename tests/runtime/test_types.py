"""The types refuse what would mislead their reader."""

import dataclasses
import json
import math
from typing import Any

import pytest

from layerguard.runtime import Evidence, Reading, Verdict

_SAFE = Reading("lcf", 1.0, 2.0, 0.5, flagged=False)
_FLAGGED = Reading("siren", 3.0, 2.0, 0.01, flagged=True, evidence=(Evidence(2, "z", -4.0),))
_INVALID = Reading("lcf", math.nan, 2.0, 0.01, flagged=True, status="invalid")


def _verdict(*readings: Reading, flagged: bool, status: str = "ok", **rest: Any) -> Verdict:
    return Verdict(
        flagged=flagged,
        status=status,  # type: ignore[arg-type]
        reason="because",
        readings={reading.detector: reading for reading in readings},
        timings_ms={"total": 1.0},
        bundle_id="0" * 16,
        tokens=3,
        truncated=False,
        **rest,
    )


@pytest.mark.parametrize("score", [2.5, math.nan, math.inf])
def test_a_reading_above_its_threshold_is_flagged(score: float) -> None:
    """A score that is not within the threshold, NaN among them, cannot pass as unflagged."""
    with pytest.raises(ValueError, match="must be flagged"):
        Reading("lcf", score, 2.0, 0.5, flagged=False)


def test_an_invalid_reading_is_flagged() -> None:
    """Neither can a reading that calls itself invalid."""
    with pytest.raises(ValueError, match="must be flagged"):
        Reading("lcf", 1.0, 2.0, 0.5, flagged=False, status="invalid")


def test_a_threshold_that_is_nan_lets_nothing_pass() -> None:
    """A broken threshold fails closed."""
    with pytest.raises(ValueError, match="must be flagged"):
        Reading("lcf", 0.0, math.nan, 1.0, flagged=False)


def test_a_score_at_its_threshold_passes() -> None:
    """The threshold itself is still clean."""
    assert not Reading("lcf", 2.0, 2.0, 0.5, flagged=False).flagged


@pytest.mark.parametrize(
    ("readings", "flagged"),
    [((_SAFE, _FLAGGED), False), ((_SAFE,), True), ((), True), ((_INVALID,), False)],
)
def test_a_verdict_agrees_with_its_readings(readings: tuple[Reading, ...], flagged: bool) -> None:
    """A verdict is flagged when a reading is, and only then."""
    with pytest.raises(ValueError, match="readings are flagged"):
        _verdict(*readings, flagged=flagged, status="invalid")


def test_a_verdict_does_not_hide_an_invalid_reading() -> None:
    """A verdict on an invalid reading is not ok."""
    with pytest.raises(ValueError, match="a reading is invalid"):
        _verdict(_INVALID, flagged=True)


_UNREAD = ("messages[0].content[1]",)


@pytest.mark.parametrize(
    ("policy", "flagged", "status", "words"),
    [
        ("flag", False, "unread", "flagged is False"),
        ("allow", True, "unread", "flagged is True"),
        ("allow", False, "ok", "1 parts are unread"),
        ("refuse", True, "unread", "such requests are refused"),
    ],
)
def test_a_verdict_agrees_with_its_unread_parts(
    policy: str, flagged: bool, status: str, words: str
) -> None:
    """It is flagged as its policy says, and its status says that parts are unread."""
    with pytest.raises(ValueError, match=words):
        _verdict(_SAFE, flagged=flagged, status=status, unread=_UNREAD, on_unread=policy)


def test_an_invalid_reading_comes_before_unread_parts() -> None:
    """The status has room for one of them; the parts stay listed."""
    found = _verdict(_INVALID, flagged=True, status="invalid", unread=_UNREAD)
    assert found.to_json()["unread"] == [*_UNREAD]
    with pytest.raises(ValueError, match="0 parts are unread"):
        _verdict(_SAFE, flagged=False, status="unread")


@pytest.mark.parametrize("value", [_SAFE, _verdict(_SAFE, flagged=False), Evidence(1, "z", 0.0)])
def test_answers_cannot_be_changed(value: Reading | Verdict | Evidence) -> None:
    """What was answered stays so."""
    name = dataclasses.fields(value)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, name, "changed")


def test_json_has_no_nan() -> None:
    """What is not finite becomes null, at any depth, and the rest is plain JSON."""
    value = _verdict(_INVALID, _FLAGGED, flagged=True, status="invalid").to_json()
    text = json.dumps(value, allow_nan=False)
    assert json.loads(text)["readings"]["lcf"]["score"] is None
    assert json.loads(text)["readings"]["siren"]["evidence"] == [
        {"layer": 2, "measure": "z", "value": -4.0}
    ]


def test_json_has_all_fields_in_their_order() -> None:
    """As ``dataclasses.asdict`` gives them, and a copy: the answer itself is not changed by it."""
    verdict = _verdict(_SAFE, _FLAGGED, flagged=True)
    value = verdict.to_json()
    assert json.dumps(value) == json.dumps(dataclasses.asdict(verdict))
    value["readings"]["siren"]["evidence"].clear()
    value["timings_ms"]["total"] = 2.0
    assert verdict.readings["siren"].evidence
    assert verdict.timings_ms["total"] == 1.0
