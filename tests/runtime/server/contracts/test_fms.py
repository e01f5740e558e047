"""The detector API: detections, their places and the threshold."""

from dataclasses import replace
from typing import Any

import pytest

from layerguard.runtime.guard import Guard
from layerguard.runtime.server.answers import Answer
from layerguard.runtime.server.contracts.found import findings, spans
from layerguard.runtime.types import Span
from tests.runtime.server.contracts.conftest import Post

_PATH = "/api/v1/text/contents"


def test_a_blocked_content_has_a_detection_of_the_guard_and_of_each_detector(post: Post) -> None:
    """Detectors without places have the whole text."""
    (response,) = post(_PATH, {"contents": ["the garden", "rain"]}, strict=True)
    first, second = response.json()
    assert [one["detection_type"] for one in first] == ["layerguard", "siren"]
    assert {(one["start"], one["end"], one["text"]) for one in first} == {(0, 10, "the garden")}
    assert {one["text"] for one in second} == {"rain"}
    assert first[0].keys() == {
        "start", "end", "text", "detection", "detection_type", "score", "evidences", "metadata",
    }  # fmt: skip


def test_a_client_may_ask_for_higher_scores_only(post: Post) -> None:
    """A low threshold adds nothing to what the guard blocks."""
    contents = ["the garden"]
    low, high = post(
        _PATH,
        {"contents": contents, "detector_params": {"threshold": 0.0}},
        {"contents": contents, "detector_params": {"threshold": 1.1}},
        strict=True,
    )
    (passed,) = post(_PATH, {"contents": contents, "detector_params": {"threshold": 0.0}})
    assert len(low.json()[0]) == 2
    assert high.json() == [[]]
    assert passed.json() == [[]]


def test_the_header_names_the_bundle_if_there_is_one(post: Post) -> None:
    """NeMo sends none, and LiteLLM whatever its settings say."""
    body = {"contents": ["a"]}
    strict, other = (
        {"json": body, "headers": {"detector-id": name}} for name in ("strict", "jailbreak")
    )
    blocked, passed = post(_PATH, strict, other)
    assert blocked.json()[0]
    assert passed.json() == [[]]


@pytest.mark.parametrize(
    "body", [{"contents": []}, {"contents": ["a"], "detector_params": {"threshold": "0.5"}}]
)
def test_a_wrong_body_is_answered_in_the_apis_form(post: Post, body: Any) -> None:
    """``code`` and ``message``."""
    (response,) = post(_PATH, body)
    assert response.status_code == response.json()["code"] == 400


@pytest.fixture(scope="module")
def answer(guard: Guard) -> Answer:
    """A blocked text, of which the second detector says where."""
    verdict = guard.check("low hills")
    first, second = verdict.readings
    placed = replace(verdict.readings[second], flagged=True, spans=(Span(5, 9, "boat", 2.0),))
    readings = {**verdict.readings, second: placed}
    verdict = replace(verdict, readings=readings, flagged=True)
    return Answer("main", "enforce", verdict, {"": 0.9, first: 0.4, second: 0.8})


def test_findings_have_the_places_of_the_detector(answer: Answer) -> None:
    """At the same characters of the text as it was given, if they hold the words."""
    guards, detectors = findings(answer, "the  boat")
    assert (guards.type, guards.start, guards.end) == ("layerguard", 0, 9)
    assert (detectors.start, detectors.end, detectors.score) == (5, 9, 0.8)


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("near a <s> boat", [(11, 15)]),
        ("a boat a boat", []),
        ("nothing of it", []),
        ("near boat and boat", [(5, 9)]),
    ],
)
def test_a_place_in_the_cleaned_text_is_found_in_the_given_one(
    answer: Answer, text: str, places: list[tuple[int, int]]
) -> None:
    """By its words if they occur once; a place that is a guess is not reported."""
    assert spans(answer, list(answer.scores)[2], text) == places


def test_a_detector_whose_place_is_not_found_has_the_whole_text(answer: Answer) -> None:
    """The finding itself is never lost."""
    _, detectors = findings(answer, "a boat a boat")
    assert (detectors.start, detectors.end) == (0, 13)


def test_a_text_that_is_not_blocked_has_no_findings(answer: Answer) -> None:
    """Whatever its scores are."""
    assert list(findings(replace(answer, mode="shadow"), "the boat")) == []
