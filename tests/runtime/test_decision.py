"""One decision over all readings: policies, shadow, domains, p-values, and failing closed."""

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerguard.runtime import Bundle, Guard
from layerguard.runtime.binding import bind_detectors
from layerguard.runtime.bundle.decision import DecisionCard, DomainCard
from layerguard.runtime.cli import main
from layerguard.runtime.decision.betting import LEAST_TEXTS
from layerguard.runtime.decision.blocks import Blocks, allowed
from layerguard.runtime.decision.policy import Decision
from layerguard.runtime.detectors.decide import decide
from layerguard.runtime.errors import InputError
from layerguard.runtime.model.backbone import Backbone
from layerguard.runtime.types import Reading, Span

NAMES = ("lcf", "siren")
TARGET, N = 0.1, 59
SCORES = np.random.default_rng(0).normal(size=(N, 2))
DOMAIN = np.arange(N) % 3 == 0
"""Rows of the domain ``chat``."""


_load = functools.cache(Bundle.load)


def calibrated(
    path: Path, policy: str = "any", shadow: tuple[str, ...] = (), *, promised: bool = True
) -> Bundle:
    """The bundle with a decision over made-up clean scores, and the thresholds of all traffic."""
    bundle = _load(path)
    columns = [NAMES.index(name) for name in NAMES if name not in shadow]
    own = Blocks(SCORES[DOMAIN][:, columns], "all" if policy == "all" else "any")
    limits = own.thresholds(allowed(int(DOMAIN.sum()), TARGET))
    deciding = (name for name in NAMES if name not in shadow)
    card = DecisionCard(
        policy=policy,
        detectors=NAMES,
        shadow=shadow,
        target_fpr=TARGET,
        fpr_interval=(0.05, 0.2) if promised else (0.0, 1.0),
        n=N,
        calibration_sha256="0" * 64,
        domains={
            "chat": DomainCard(
                int(DOMAIN.sum()),
                (0.01, 0.3),
                {"lcf": 0.0, "siren": 0.0} | dict(zip(deciding, limits, strict=True)),  # type: ignore[arg-type]
            ),
            "mail": DomainCard(0, (0.0, 1.0), {}),
        },
    )
    arrays = {
        "scores": SCORES,
        "domains": np.where(DOMAIN, 0, -1).astype(np.int32),
        "texts": np.arange(N),
        "seen": np.arange(N),
    }
    manifest = replace(bundle.manifest, decision=card)
    return replace(bundle, manifest=manifest, decision=arrays)


def readings(scores: tuple[float, float], limits: tuple[float, float]) -> dict[str, Reading]:
    """One reading a detector."""
    return {
        name: decide(name, score, limit, [], ())
        for name, score, limit in zip(NAMES, scores, limits, strict=True)
    }


@pytest.mark.parametrize(
    ("policy", "shadow", "expected"),
    [
        ("any", (), [False, True, True, True]),
        ("all", (), [False, False, False, True]),
        ("lcf", ("siren",), [False, True, False, True]),
        ("any", ("lcf",), [False, False, True, True]),
    ],
)
def test_policies(sound: Path, policy: str, shadow: tuple[str, ...], expected: list[bool]) -> None:
    """Neither, lcf alone, siren alone, both: who flags by which policy."""
    decision = Decision(calibrated(sound, policy, shadow))
    cases = [(0.0, 0.0), (2.0, 0.0), (0.0, 2.0), (2.0, 2.0)]
    found = [decision.decide(readings(case, (1.0, 1.0))) for case in cases]
    assert [decided.flagged for decided in found] == expected
    assert not any(decided.invalid for decided in found)


@pytest.mark.parametrize("policy", ["any", "all"])
def test_an_invalid_reading_that_decides_flags_by_any_policy(sound: Path, policy: str) -> None:
    """One that is only in shadow does not."""
    broken = readings((math.nan, 0.0), (1.0, 1.0))
    decided = Decision(calibrated(sound, policy)).decide(broken)
    assert (decided.flagged, decided.invalid) == (True, True)
    assert decided.p_value == 1 / (N + 1)
    aside = Decision(calibrated(sound, policy, ("lcf",))).decide(broken)
    assert (aside.flagged, aside.invalid) == (False, False)


@pytest.mark.parametrize("policy", ["any", "all"])
@pytest.mark.parametrize("domain", [None, "chat"])
@given(scores=st.tuples(st.floats(-3, 3), st.floats(-3, 3)))
def test_the_p_value_is_within_the_target_where_the_guard_flags(
    sound: Path, policy: str, domain: str | None, scores: tuple[float, float]
) -> None:
    """The whole guard's, of all traffic and of a domain."""
    decision = Decision(calibrated(sound, policy))
    own = SCORES if domain is None else SCORES[DOMAIN]
    count = allowed(len(own), TARGET)
    found = Blocks(own, "all" if policy == "all" else "any").thresholds(count)
    limits = (found[0] or 0.0, found[1] or 0.0)
    decided = decision.decide(readings(scores, limits), domain)
    assert decided.p_value is not None
    assert decided.flagged == (decided.p_value <= (count + 0.5) / (len(own) + 1))


def test_words_are_kept_where_the_domain_flags_too(sound: Path) -> None:
    """A reading that is not flagged at the domain's threshold repeats none of the text."""
    part = (Span(0, 5, "words", 9.0),)
    found = readings((9.0, -9.0), (-99.0, -99.0))
    found = {name: replace(reading, spans=part) for name, reading in found.items()}
    own = Decision(calibrated(sound)).decide(found, "chat").readings
    assert (own["lcf"].flagged, own["siren"].flagged) == (True, False)
    assert (own["lcf"].spans, own["siren"].spans) == (part, ())


def test_a_domain_has_its_own_thresholds(sound: Path) -> None:
    """Readings say the thresholds that decided; an unknown domain has those of all traffic."""
    bundle = calibrated(sound)
    decision = Decision(bundle)
    found = readings((0.5, 0.5), (9.0, 9.0))
    own = decision.decide(found, "chat")
    assert bundle.manifest.decision is not None
    expected = bundle.manifest.decision.domains["chat"].thresholds
    assert {n: r.threshold for n, r in own.readings.items()} == expected
    above = 1 + int((SCORES[DOMAIN][:, 0] >= 0.5).sum())
    assert own.readings["lcf"].p_value == above / (DOMAIN.sum() + 1)
    assert own.domain == "chat"
    for domain in ("mail", "unheard of", None):
        other = decision.decide(found, domain)
        assert (other.readings, other.domain) == (found, None)


def test_without_a_promise_there_is_no_p_value(sound: Path) -> None:
    """Neither where a published threshold decides, nor in a bundle without a decision."""
    found = readings((0.0, 2.0), (1.0, 1.0))
    for bundle in (calibrated(sound, promised=False), Bundle.load(sound)):
        decided = Decision(bundle).decide(found, "chat")
        assert (decided.flagged, decided.p_value, decided.domain) == (True, None, None)
        assert Decision(bundle).promised == {None: (0.0, 1.0)}


def guard_of(bundle: Bundle) -> Guard:
    """A guard on a bundle that is on no disk."""
    return Guard(bundle, Backbone(bundle, threads=1), bind_detectors(bundle))


def test_a_verdict_says_who_decided(sound: Path) -> None:
    """Policy, shadow, p-value and domain are in it and in its JSON."""
    guard = guard_of(calibrated(sound, "lcf", ("siren",)))
    verdict = guard.check("the garden", domain="chat")
    value = verdict.to_json()
    assert (value["policy"], value["shadow"], value["domain"]) == ("lcf", ["siren"], "chat")
    assert 0 < value["p_value"] <= 1
    assert guard.check_batch([{"text": "the garden", "domain": "chat"}, "the garden"])[0].domain


def test_a_text_on_the_command_line_has_a_domain(
    sound: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``--domain`` is the text's; rows of a file say their own."""
    guard = guard_of(calibrated(sound))
    monkeypatch.setattr(Guard, "load", lambda *_args, **_options: guard)
    assert main(["score", str(sound), "the garden", "--domain", "chat", "--json"]) in (0, 1)
    assert json.loads(capsys.readouterr().out)["domain"] == "chat"
    assert main(["score", str(sound), "--input", "rows.jsonl", "--domain", "chat"]) == 2
    assert "--input and --domain" in capsys.readouterr().err


def test_a_domain_that_is_no_text_is_refused(guard: Guard) -> None:
    """By name and, in a batch, by index."""
    with pytest.raises(InputError, match="domain: found int"):
        guard.check("x", domain=3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="item 0: domain: found list"):
        guard.check_batch([{"text": "x", "domain": []}])


def test_a_guard_counts_its_traffic_and_says_when_it_drifts(sound: Path) -> None:
    """Every text that was checked counts; then verdicts say so, and an invalid one still more."""
    bundle = calibrated(sound)
    low = {n: replace(c, threshold=-1e9) for n, c in bundle.manifest.detectors.items()}
    params: Mapping[str, Mapping[str, object]] = {
        name: {**own, "threshold": np.array(-1e9)} for name, own in bundle.params.items()
    }
    strict = replace(
        bundle,
        manifest=replace(bundle.manifest, detectors=low),
        params=params,  # type: ignore[arg-type]
    )
    guard = guard_of(strict)
    verdicts = guard.check_batch(["the garden"] * LEAST_TEXTS)
    assert (guard.monitor.n, guard.monitor.flagged) == (LEAST_TEXTS, LEAST_TEXTS)
    assert guard.monitor.rate == 1.0
    assert (verdicts[0].status, verdicts[-1].status) == ("ok", "drifting")
    assert "drifting: 100 of the last 100 texts were flagged" in verdicts[-1].reason
    assert "layerguard recalibrate" in verdicts[-1].reason
    assert guard.check("the garden", domain="another").status == "ok"
    guard.monitor.reset()
    assert guard.check("the garden").status == "ok"


def test_canaries_do_not_count_as_traffic(sound: Path) -> None:
    """A guard begins at nothing."""
    assert Guard.load(sound, threads=1).monitor.n == 0
