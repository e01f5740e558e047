"""Steered verdicts: acceptable only if no detector other than WeightWatch flags."""

import math

import pytest

from layerguard.runtime.generation import steering
from layerguard.runtime.types import Reading, Status, Verdict, decision_of

THRESHOLD = 1.0
CALM, HIGH, UNKNOWN = 0.5, 2.0, math.nan


def is_acceptable(verdict: Verdict) -> bool:
    """Whether a text may be released while WeightWatch's directions are removed."""
    return steering.is_acceptable(verdict, "weightwatch")


def verdict(
    policy: str, lcf: float, siren: float, weightwatch: float, shadow: tuple[str, ...] = ()
) -> Verdict:
    """The verdict on a text with these scores of LCF, SIREN and WeightWatch."""
    scores = {"lcf": lcf, "siren": siren, "weightwatch": weightwatch}
    readings = {}
    for name, score in scores.items():
        valid: Status = "ok" if math.isfinite(score) else "invalid"
        flagged = not score <= THRESHOLD
        readings[name] = Reading(name, score, THRESHOLD, 0.5, flagged, status=valid)
    deciding = [reading for name, reading in readings.items() if name not in shadow]
    flagged, invalid = decision_of(deciding, policy)
    status: Status = "invalid" if invalid else "ok"
    return Verdict(
        flagged=flagged,
        status=status,
        reason="",
        readings=readings,
        timings_ms={},
        bundle_id="",
        tokens=1,
        truncated=False,
        policy=policy,
        shadow=shadow,
    )


@pytest.mark.parametrize("policy", ["any", "all"])
@pytest.mark.parametrize("place", range(3))
def test_an_invalid_score_is_never_mended(policy: str, place: int) -> None:
    """An invalid score is never acceptable, under any policy."""
    assert is_acceptable(verdict(policy, CALM, CALM, CALM))
    lcf, siren, weightwatch = (UNKNOWN if at == place else CALM for at in range(3))
    assert not is_acceptable(verdict(policy, lcf, siren, weightwatch))


def test_any_other_detector_that_decides_ends_the_answer() -> None:
    """Policy ``any``: WeightWatch may flag, LCF and SIREN may not."""
    assert is_acceptable(verdict("any", CALM, CALM, HIGH))
    assert not is_acceptable(verdict("any", HIGH, CALM, CALM))
    assert not is_acceptable(verdict("any", CALM, HIGH, HIGH))


def test_where_all_must_flag_one_that_steering_mends_is_enough() -> None:
    """Policy ``all``: without WeightWatch's flag the text is not flagged, whatever others say."""
    assert is_acceptable(verdict("all", HIGH, HIGH, CALM))
    assert is_acceptable(verdict("all", HIGH, HIGH, HIGH))


def test_where_weightwatch_does_not_decide_steering_mends_nothing() -> None:
    """Policy ``all`` over LCF and SIREN, which both flag: the answer is withheld."""
    shadow = ("weightwatch",)
    assert not is_acceptable(verdict("all", HIGH, HIGH, CALM, shadow))
    assert is_acceptable(verdict("all", HIGH, CALM, HIGH, shadow))
    assert not is_acceptable(verdict("lcf", HIGH, CALM, CALM, ("siren", *shadow)))


@pytest.mark.parametrize("policy", ["any", "all"])
def test_a_detector_in_the_shadow_neither_ends_nor_spares_an_answer(policy: str) -> None:
    """Flags and NaN scores of shadow detectors have no effect."""
    for score in (CALM, HIGH, UNKNOWN):
        assert is_acceptable(verdict(policy, CALM, score, HIGH, ("siren",)))
        found = is_acceptable(verdict(policy, HIGH, score, CALM, ("siren",)))
        assert found == (policy == "all")
