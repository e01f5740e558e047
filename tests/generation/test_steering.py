"""What steering can mend: a verdict of which only WeightWatch's part is wrong, and no other."""

import math

import pytest

from layerguard.runtime.generation.steering import mended
from layerguard.runtime.types import Reading, Verdict, decision_of

THRESHOLD = 1.0
CALM, HIGH, UNKNOWN = 0.5, 2.0, math.nan


def verdict(policy: str, shadow: tuple[str, ...] = (), **scores: float) -> Verdict:
    """The verdict on a text with these scores."""
    readings = {}
    for name, score in scores.items():
        status = "ok" if math.isfinite(score) else "invalid"
        flagged = not score <= THRESHOLD
        readings[name] = Reading(name, score, THRESHOLD, 0.5, flagged, status=status)  # type: ignore[arg-type]
    deciding = [reading for name, reading in readings.items() if name not in shadow]
    flagged, invalid = decision_of(deciding, policy)
    status = "invalid" if invalid else "ok"
    return Verdict(flagged, status, "", readings, {}, "", 1, False, policy, shadow)  # type: ignore[arg-type]


@pytest.mark.parametrize("policy", ["any", "all"])
@pytest.mark.parametrize("name", ["lcf", "weightwatch"])
def test_an_invalid_score_is_never_mended(policy: str, name: str) -> None:
    """Whatever the policy, and of WeightWatch too: what cannot be read was not taken out."""
    scores = {"lcf": CALM, "siren": CALM, "weightwatch": CALM}
    assert mended(verdict(policy, **scores))
    assert not mended(verdict(policy, **{**scores, name: UNKNOWN}))


def test_any_other_detector_that_decides_ends_the_answer() -> None:
    """Policy ``any``: WeightWatch may flag, LCF and SIREN may not."""
    assert mended(verdict("any", lcf=CALM, siren=CALM, weightwatch=HIGH))
    assert not mended(verdict("any", lcf=HIGH, siren=CALM, weightwatch=CALM))
    assert not mended(verdict("any", lcf=CALM, siren=HIGH, weightwatch=HIGH))


def test_where_all_must_flag_one_that_steering_mends_is_enough() -> None:
    """Policy ``all``: without WeightWatch's flag the text is not flagged, whatever others say."""
    assert mended(verdict("all", lcf=HIGH, siren=HIGH, weightwatch=CALM))
    assert mended(verdict("all", lcf=HIGH, siren=HIGH, weightwatch=HIGH))


def test_where_weightwatch_does_not_decide_steering_mends_nothing() -> None:
    """Policy ``all`` over LCF and SIREN, which both flag: the answer is withheld."""
    shadow = ("weightwatch",)
    assert not mended(verdict("all", shadow, lcf=HIGH, siren=HIGH, weightwatch=CALM))
    assert mended(verdict("all", shadow, lcf=HIGH, siren=CALM, weightwatch=HIGH))
    assert not mended(verdict("lcf", ("siren", *shadow), lcf=HIGH, siren=CALM, weightwatch=CALM))


@pytest.mark.parametrize("policy", ["any", "all"])
def test_a_detector_in_the_shadow_neither_ends_nor_spares_an_answer(policy: str) -> None:
    """Its flag, and its score that is no number, count for nothing."""
    for score in (CALM, HIGH, UNKNOWN):
        assert mended(verdict(policy, ("siren",), lcf=CALM, siren=score, weightwatch=HIGH))
        found = mended(verdict(policy, ("siren",), lcf=HIGH, siren=score, weightwatch=CALM))
        assert found == (policy == "all")
