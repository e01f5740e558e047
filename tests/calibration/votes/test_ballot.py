"""Who decides: false alarms on sources that were left out, with intervals."""

import numpy as np
import pytest

from layerguard.calibration.rows.traffic import LEAST_TEXTS, MOST_SOURCES, Sources, source_of
from layerguard.calibration.stages import LeftOut
from layerguard.calibration.votes.ballot import Candidate, Rule, detection, one_must_decide
from layerguard.runtime.bundle.votes import VoteCard
from layerguard.runtime.errors import InputError
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.text.request import request


def rows_of(**counts: int) -> list[Row]:
    """Rows of some sources; their texts are ``SOURCE NUMBER``."""
    return [
        Row(f"{source} {i}", request(f"{source} {i}"), source=source)
        for source, count in counts.items()
        for i in range(count)
    ]


def scores_of(rows: list[Row], rng: np.random.Generator, **shifts: float) -> dict[str, float]:
    """A normal score of each row's text, shifted by source."""
    return {row.request.prompt: rng.normal() + shifts.get(row.source or "", 0.0) for row in rows}


def vote(scores: dict[str, float], rows: list[Row], rule: Rule) -> VoteCard:
    """The vote of a detector that was fitted to other rows."""
    return rule.vote(Candidate("lcf", scores), rows)


def test_a_detector_that_flags_an_unseen_source_is_put_in_shadow() -> None:
    """The card names the source, its share, and what would change the vote."""
    rows = rows_of(mail=120, chat=120)
    scores = scores_of(rows, np.random.default_rng(0), chat=4.0)
    card = vote(scores, rows, Rule(0.05))
    assert not card.decides
    assert (card.unseen["chat"].n, card.unseen["chat"].flagged) == (120, 117)
    assert card.unseen["mail"].flagged == 0
    assert card.least["chat"] > 0.9
    assert "texts of chat, a source that it had not seen" in card.reason
    assert "raise --max-shift, or --enforce lcf" in card.reason


def test_the_threshold_of_a_source_comes_from_the_others() -> None:
    """Two texts above the largest other score are flagged; the source's own scores set nothing."""
    rows = rows_of(a=40, b=40)
    scores = {row.request.prompt: float(i % 40) for i, row in enumerate(rows)}
    scores |= {"b 0": 50.0, "b 1": 60.0}
    card = vote(scores, rows, Rule(0.03))  # one of the 41 blocks
    assert card.unseen["b"].flagged == 2
    assert card.unseen["a"].flagged == 0


def test_good_detectors_keep_their_vote() -> None:
    """Scores that do not depend on the source are put in shadow with 5 % probability at most.

    With the share itself instead of its bound, half of these detectors would lose the vote.
    """
    rng, lost = np.random.default_rng(1), 0
    rows = rows_of(a=30, b=40, c=60, d=100)
    for _ in range(200):
        lost += not vote(scores_of(rows, rng), rows, Rule(0.01, max_shift=2)).decides
    assert lost <= 0.05 * 200


def test_a_handful_of_texts_decides_nothing() -> None:
    """Of a source below ``LEAST_TEXTS`` nothing is measured, and the card says so."""
    rows = rows_of(mail=120, chat=LEAST_TEXTS - 1)
    scores = scores_of(rows, np.random.default_rng(0), chat=9.0)
    card = vote(scores, rows, Rule(0.05))
    assert card.decides
    assert card.unseen.keys() == {"mail"}
    assert card.not_measured["chat"] == f"fewer than {LEAST_TEXTS} texts"


def test_rows_without_sources_are_not_judged() -> None:
    """The reason says that nothing could be left out."""
    rows = [Row(str(i), request(f"text {i}")) for i in range(100)]
    card = vote({row.request.prompt: 0.0 for row in rows}, rows, Rule(0.05))
    assert card.decides
    assert card.unseen == {}
    assert "no source could be left out (the rows name fewer than two sources)" in card.reason


def test_the_user_overrides_the_evidence() -> None:
    """--enforce makes it decide, --shadow keeps it from deciding; both say what was found."""
    rows = rows_of(mail=120, chat=120)
    scores = scores_of(rows, np.random.default_rng(0), chat=4.0)
    enforced = vote(scores, rows, Rule(0.05, enforced=["lcf"]))
    assert enforced.decides
    assert enforced.reason.startswith("decides, as enforced: it flagged 117 of 120 texts of chat")
    kept_out = vote(scores, rows, Rule(0.05, shadow=["lcf"]))
    assert not kept_out.decides
    assert kept_out.reason.startswith("in shadow, as asked: it flagged 117 of 120")
    published = vote(scores, rows, Rule(0.05, judged=False))
    assert published.decides


def test_a_larger_shift_may_be_allowed() -> None:
    """The limit is --max-shift times the target; below 1 it is refused."""
    rows = rows_of(mail=120, chat=120)
    scores = scores_of(rows, np.random.default_rng(0), chat=1.5)
    assert not vote(scores, rows, Rule(0.05)).decides
    assert vote(scores, rows, Rule(0.05, max_shift=15)).decides
    with pytest.raises(InputError, match=r"--max-shift: found 0\.5; expected a number from 1 on"):
        Rule(0.05, max_shift=0.5)
    with pytest.raises(InputError, match="found nan"):
        Rule(0.05, max_shift=float("nan"))


def test_a_refit_counts_before_the_threshold_alone() -> None:
    """Where a refit left the source out, its count is used, and the card says so."""
    rows = rows_of(mail=120, chat=120)
    scores = scores_of(rows, np.random.default_rng(0))
    left_out = {"chat": LeftOut(120, 90)}
    candidate = Candidate("lcf", scores, None, left_out, {"mail": "the other rows do not suffice"})
    card = Rule(0.05).vote(candidate, rows)
    assert (card.unseen["chat"].flagged, card.refitted) == (90, ("chat",))
    assert card.not_measured == {"mail": "the other rows do not suffice"}
    assert not card.decides


def test_a_published_threshold_is_measured_as_it_is() -> None:
    """It is not moved to the target."""
    rows = rows_of(mail=60, chat=60)
    scores = {row.request.prompt: float(i % 60) for i, row in enumerate(rows)}
    card = Rule(0.05).vote(Candidate("siren", scores, published=29.0), rows)
    assert card.unseen["chat"].flagged == card.unseen["mail"].flagged == 30


def test_one_detector_must_decide() -> None:
    """If none has earned its vote, the best at attacks decides, else the one with least shift."""
    cards = {
        "lcf": VoteCard(False, "in shadow: a", least={"mail": 0.1, "chat": 0.6}),
        "siren": VoteCard(False, "in shadow: b", least={"mail": 0.5}),
        "weightwatch": VoteCard(False, "in shadow, as asked: c", least={"mail": 0.2}),
    }
    rule = Rule(0.05, shadow=["weightwatch"])
    voted = one_must_decide(cards, rule, {"lcf": 0.4, "siren": 0.1, "weightwatch": 0.9})
    assert [name for name, vote in voted.items() if vote.decides] == ["lcf"]
    voted = one_must_decide(cards, rule, {"lcf": 0.0})
    assert [name for name, vote in voted.items() if vote.decides] == ["siren"]
    assert voted["siren"].reason == (
        "decides, although no detector has earned its vote, because one must: b"
    )
    earned = cards | {"lcf": VoteCard(True, "decides: d")}
    assert one_must_decide(earned, rule, {"siren": 1.0}) == earned


def test_detection_is_at_the_detectors_own_threshold() -> None:
    """Of the texts of label 1, those above the conformal or the published threshold count."""
    clean = {str(i): float(i) for i in range(99)}
    harmful = {"a": 94.0, "b": 94.5, "c": 200.0, "d": float("nan")}
    assert detection(Candidate("lcf", clean), harmful, 0.05) == 0.75
    assert detection(Candidate("lcf", clean, published=199.0), harmful, 0.05) == 0.5
    assert detection(Candidate("lcf", clean), {}, 0.05) == 0.0


def test_the_largest_sources_are_measured() -> None:
    """Beyond ``MOST_SOURCES`` a source is named as not measured; rows of label 1 do not count."""
    rows = rows_of(**{f"s{i}": 40 + i for i in range(MOST_SOURCES + 1)})
    rows += [Row(f"x{i}", request(f"x {i}"), label=1, source="bad") for i in range(90)]
    sources = Sources.of(rows)
    assert sources.measured == tuple(f"s{i}" for i in range(MOST_SOURCES, 0, -1))
    assert sources.not_measured.keys() == {"s0"}
    assert sources == Sources.of([*rows, *rows])


def test_a_domain_stands_in_for_the_source() -> None:
    """The source comes first."""
    one = Row("1", request("a"), domain="mail")
    assert source_of(one) == "mail"
    assert source_of(Row("1", request("a"), domain="mail", source="enron")) == "enron"
    assert source_of(Row("1", request("a"))) is None
