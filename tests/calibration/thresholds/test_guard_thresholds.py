"""The thresholds of a guard: one target, domains, published thresholds, refusals."""

from collections.abc import Mapping

import numpy as np
import pytest

from layerguard.calibration.rows.leakage import prompt_group
from layerguard.calibration.thresholds import conformal
from layerguard.calibration.thresholds.guard_thresholds import (
    GuardThresholds,
    Policy,
    TextScores,
    set_thresholds,
)
from layerguard.runtime.decision.blocks import Blocks, allowed
from layerguard.runtime.errors import CalibrationError, InputError
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.text.request import request
from layerguard.runtime.types import Array

NAMES = ("a", "b", "c")


def rows(n: int, domains: Mapping[int, str] | None = None) -> list[Row]:
    """Different clean rows; ``domains`` by remainder of the row's number by 3."""
    return [Row(str(i), request(f"text {i}"), domain=(domains or {}).get(i % 3)) for i in range(n)]


def text_scores(scores: Array, names: tuple[str, ...] = NAMES) -> dict[str, TextScores]:
    """By detector, the scores of ``rows``."""
    texts = [prompt_group(row) for row in rows(len(scores))]
    return {
        name: dict(zip(texts, scores[:, i].tolist(), strict=True)) for i, name in enumerate(names)
    }


def guard(scores: Array, policy: Policy, **more: object) -> GuardThresholds:
    """The thresholds of detectors a, b, ..."""
    names = NAMES[: scores.shape[1]]
    return set_thresholds(text_scores(scores, names), rows(len(scores)), policy, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["any", "all"])
@pytest.mark.parametrize("detectors", [1, 2, 3])
def test_thresholds_are_those_of_the_blocks(name: str, detectors: int) -> None:
    """The promise is of all detectors together."""
    scores = np.random.default_rng(0).normal(size=(99, detectors))
    found = guard(scores, Policy(name, (), 0.1))
    expected = Blocks(scores, "all" if name == "all" else "any").thresholds(10)
    assert [found.thresholds[n].value for n in NAMES[:detectors]] == expected
    assert found.card.fpr_interval == tuple(conformal.fpr_interval(99, 0.1).tolist())
    assert (found.card.n, found.card.target_fpr, found.card.policy) == (99, 0.1, name)
    assert np.array_equal(found.arrays["scores"], scores)
    for i, own in enumerate(found.thresholds.values()):
        limit = own.value
        assert np.array_equal(own.clean_scores, np.sort(scores[:, i]))
        above = int((scores[:, i] >= limit).sum())
        assert own.target_fpr == pytest.approx(0.1 if detectors == 1 else above / 100)


def test_one_detector_is_as_it_would_be_alone() -> None:
    """The threshold, target and interval of a single detector are those of its own fit."""
    scores = np.random.default_rng(1).normal(size=(150, 1))
    own = guard(scores, Policy("any", (), 0.07)).thresholds["a"]
    assert own.value == conformal.threshold(scores[:, 0], 0.07)
    assert own.target_fpr == 0.07
    assert own.fpr_interval == tuple(conformal.fpr_interval(150, 0.07).tolist())


def test_scores_of_unseen_sources_promise_no_least_rate() -> None:
    """Traffic of the sources that were seen is flagged less often, which is no drift.

    A detector that does not decide changes nothing for the guard.
    """
    scores = np.random.default_rng(3).normal(size=(99, 2))
    many = rows(99, {0: "mail", 1: "mail", 2: "mail"})
    both = [Policy("any", (), 0.1), Policy("a", ("b",), 0.1)]
    low, high = conformal.fpr_interval(99, 0.1).tolist()
    for policy, least in zip(both, (0.0, low), strict=True):
        found = set_thresholds(
            text_scores(scores, ("a", "b")), many, policy, held_out_sources=["b"]
        )
        assert found.card.fpr_interval == (least, high)
        assert found.card.domains["mail"].fpr_interval == (least, high)
        lows = {name: own.fpr_interval[0] for name, own in found.thresholds.items()}
        assert lows["b"] == 0 < lows["a"]
        plain = set_thresholds(text_scores(scores, ("a", "b")), many, policy)
        assert {n: own.value for n, own in found.thresholds.items()} == {
            n: own.value for n, own in plain.thresholds.items()
        }


def test_a_detector_in_shadow_takes_nothing_of_the_target() -> None:
    """The shadow detector and the deciding one have the thresholds of single detectors."""
    scores = np.random.default_rng(2).normal(size=(99, 2))
    policy = Policy.over(("a", "b"), "b", (), 0.1)
    found = guard(scores, policy)
    assert (found.card.shadow, found.card.enforced) == (("a",), ("b",))
    for i, name in enumerate("ab"):
        limit = found.thresholds[name].value
        assert limit == conformal.threshold(scores[:, i], 0.1)


def test_domains_have_thresholds_where_their_texts_suffice() -> None:
    """A domain with too few texts has no thresholds of its own."""
    scores = np.random.default_rng(3).normal(size=(120, 2))
    mixed = rows(120, {0: "chat", 1: "mail"})
    mixed = [row if row.domain != "mail" or i < 30 else rows(120)[i] for i, row in enumerate(mixed)]
    found = set_thresholds(text_scores(scores, ("a", "b")), mixed, Policy("any", (), 0.1))
    chat, mail = found.card.domains["chat"], found.card.domains["mail"]
    expected = Blocks(scores[::3], "any").thresholds(allowed(40, 0.1))
    assert list(chat.thresholds.values()) == expected
    assert (chat.n, mail.n, mail.thresholds) == (40, 10, {})
    assert sorted(set(found.arrays["domains"].tolist())) == [-1, 0, 1]


def test_a_published_threshold_stays_and_promises_nothing() -> None:
    """Next to a published threshold, the other detector has the threshold of a single one."""
    scores = np.random.default_rng(4).normal(size=(99, 2))
    found = guard(scores, Policy("any", (), 0.1), fixed={"a"})
    assert found.thresholds.keys() == {"b"}
    assert found.thresholds["b"].value == conformal.threshold(scores[:, 1], 0.1)
    assert (found.card.fpr_interval, found.card.promised) == ((0.0, 1.0), False)
    aside = guard(scores, Policy("any", ("a",), 0.1), fixed={"a"})
    assert aside.card.promised


def test_texts_that_a_detector_could_not_score_are_left_out() -> None:
    """The decision uses only texts that all detectors scored."""
    scores = np.random.default_rng(5).normal(size=(99, 2))
    found = text_scores(scores, ("a", "b"))
    found["b"] = {text: score for text, score in found["b"].items() if not text.endswith("7")}
    result = set_thresholds(found, rows(99), Policy("any", (), 0.1))
    assert result.card.n == 89
    assert result.arrays["scores"].shape == (89, 2)


@pytest.mark.parametrize(("name", "least"), [("any", 299), ("all", 99)])
def test_a_target_shared_by_three_needs_more_texts(name: str, least: int) -> None:
    """Every detector that may flag alone needs a block of its own."""
    scores = np.random.default_rng(6).normal(size=(least, 3))
    policy = Policy(name, (), 0.01)
    assert guard(scores, policy).card.n == least
    with pytest.raises(
        CalibrationError, match=f"at least {least} clean prompts, found {least - 1}"
    ):
        guard(scores[1:], policy)


@pytest.mark.parametrize(
    ("name", "shadow", "said"),
    [
        ("some", (), "--policy: found 'some'; expected any, all, or one of a, b, c"),
        ("a", ("a",), "--policy: found 'a'"),
        ("any", ("x",), "--shadow: found x; expected some of a, b, c"),
        ("any", NAMES, "--shadow: found all of a, b, c"),
    ],
)
def test_policies_that_cannot_be_are_refused(name: str, shadow: tuple[str, ...], said: str) -> None:
    """The message says what was found and what is valid."""
    with pytest.raises(InputError, match=said):
        Policy.over(NAMES, name, shadow, 0.1)


@pytest.mark.parametrize("detectors", [1, 2, 3])
@pytest.mark.parametrize("target", [0.1, 0.05, 0.01])
def test_adding_a_detector_adds_no_false_alarms(target: float, detectors: int) -> None:
    """The guard's realised rate over 60 draws is the target, with and without domains."""
    rng = np.random.default_rng([int(1000 * target), detectors])
    n, draws = 599, 60
    realised = np.empty(draws)
    for draw in range(draws):
        mix = rng.normal(size=(detectors, detectors))
        clean, fresh = (rng.standard_t(4, (size, detectors)) @ mix for size in (n, 1_000))
        found = guard(clean, Policy("any", (), target))
        limits = [own.value for own in found.thresholds.values()]
        realised[draw] = (fresh > limits).any(axis=1).mean()
    error = realised.std(ddof=1) / draws**0.5
    assert abs(realised.mean() - target) < 4 * error
