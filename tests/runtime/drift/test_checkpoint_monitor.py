"""The checkpoint monitor: readings of states and of checkpoints in bundles."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from layerguard.runtime.bundle import Bundle
from layerguard.runtime.drift import CheckpointMonitor
from layerguard.runtime.drift.base import Base, load_checkpoint
from layerguard.runtime.drift.projection import drift, mean_norm, project
from layerguard.runtime.drift.reading import DriftReading
from layerguard.runtime.errors import BundleError, InputError
from layerguard.runtime.text.request import request
from layerguard.runtime.text.tokens import TokenReader
from layerguard.runtime.types import Array
from tests.drift_monitors import (
    PROMPTS,
    TAU,
    TRAITS,
    make_base,
    make_checkpoint,
    make_monitor,
    reseal,
)
from tests.reference import drift as oracle
from tests.tiny import WIDTH
from tests.tolerances import drift as drift_tolerance

SHAPE = (len(PROMPTS), WIDTH)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base model's bundle."""
    return make_base(tmp_path_factory.mktemp("base") / "bundle")


@pytest.fixture(scope="module")
def monitor(base: Path, tmp_path_factory: pytest.TempPathFactory) -> CheckpointMonitor:
    """A linear monitor: predicted = 0.02 + drift of the first trait."""
    return CheckpointMonitor.load(make_monitor(tmp_path_factory.mktemp("monitor") / "m", base))


@pytest.fixture(scope="module")
def step_monitor(base: Path, tmp_path_factory: pytest.TempPathFactory) -> CheckpointMonitor:
    """The same, step-aware: alarm where 100 |drift| / step > 0.5."""
    folder = tmp_path_factory.mktemp("monitor") / "m"
    return CheckpointMonitor.load(make_monitor(folder, base, step_aware=True))


def states_at(first: float, second: float = 0.0) -> Array:
    """States whose mean has these projections on the two directions; base_norm is 2."""
    states = np.zeros(SHAPE, np.float32)
    states[:, 0], states[:, 1] = 2 * first, 2 * second
    return states


@given(
    arrays(np.float32, (5, 7), elements=st.floats(-100, 100, width=32)),
    arrays(np.float32, (5, 7), elements=st.floats(-100, 100, width=32)),
    st.integers(0, 2**32 - 1),
)
def test_drift_is_the_published_formula(base: Array, states: Array, seed: int) -> None:
    """Projection, norm and drift equal the oracle's within the rounding of float64 sums."""
    base[:, 0] += 150  # no base of length zero
    unit = np.random.default_rng(seed).normal(size=7)
    unit = (unit / np.linalg.norm(unit)).astype(np.float32)
    origin, norm = project(base, unit[None]), mean_norm(base)
    found = drift(project(states, unit[None]), origin, norm)[0]
    expected = oracle.drift(states.tolist(), base.tolist(), unit.tolist())
    assert norm == pytest.approx(oracle.norm(base.tolist()), rel=1e-14)
    assert abs(found - expected) <= drift_tolerance(states, base)


def test_the_base_itself_has_not_drifted() -> None:
    """Equal states have a drift of exactly zero."""
    states = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
    origin = project(states, np.eye(3, 5, dtype=np.float32))
    assert not drift(project(states, np.eye(3, 5)), origin, mean_norm(states)).any()


@pytest.mark.parametrize(("first", "alarm"), [(0.0, False), (0.03, False), (0.031, True)])
def test_the_alarm_is_raised_above_tau(
    monitor: CheckpointMonitor, first: float, alarm: bool
) -> None:
    """A prediction equal to the threshold is within it; a larger one raises the alarm."""
    reading = monitor.score_states(states_at(np.float32(first)))
    assert reading.predicted == pytest.approx(0.02 + first, abs=1e-8)
    assert reading.alarm == (reading.predicted > TAU)
    if first != 0.03:  # whose float32 neighbour lies on either side
        assert reading.alarm == alarm
    assert reading.status == "ok"


@pytest.mark.parametrize(("first", "predicted"), [(-5.0, 0.0), (7.0, 1.0)])
def test_predictions_are_shares(monitor: CheckpointMonitor, first: float, predicted: float) -> None:
    """Predictions are clipped to 0 and 1."""
    assert monitor.score_states(states_at(first)).predicted == predicted


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_raises_the_alarm(monitor: CheckpointMonitor, value: float) -> None:
    """One such number gives status invalid, an alarm, and None in JSON."""
    states = states_at(0.0)
    states[1, 3] = value
    reading = monitor.score_states(states)
    assert (reading.alarm, reading.status) == (True, "invalid")
    assert "not finite" in reading.reason
    plain = json.loads(json.dumps(reading.to_json(), allow_nan=False))
    assert plain["predicted"] is None


def test_an_invalid_reading_cannot_pass() -> None:
    """The type refuses an invalid reading without an alarm."""
    with pytest.raises(ValueError, match="must be raised"):
        DriftReading("", "", "", 0.0, 0.05, None, None, False, "invalid", "", ())


def test_traits_are_shown_beside_aligned_checkpoints(monitor: CheckpointMonitor) -> None:
    """Moved is what lies outside their range; the pole is named by the sign; dangerous ones,
    whose drift was 0.5, do not widen the range.
    """
    reading = monitor.score_states(states_at(0.005, -0.2))
    first, second = reading.traits
    assert [trait.name for trait in reading.traits] == list(TRAITS)
    assert (first.low, first.high) == (-0.01, 0.01)
    assert not first.moved
    assert second.moved
    assert second.drift == pytest.approx(-0.2)
    assert second.towards == "sycophancy -"
    assert "sycophancy towards sycophancy -" in reading.reason
    assert "honesty" not in reading.reason


def test_states_of_another_shape_are_refused(monitor: CheckpointMonitor) -> None:
    """The message gives both shapes."""
    with pytest.raises(InputError, match=r"found \[4, 3\]; expected \[4, 16\]"):
        monitor.score_states(np.zeros((4, 3), np.float32))


def test_a_step_aware_alarm_forgives_slow_drift(step_monitor: CheckpointMonitor) -> None:
    """The same drift is an alarm at step 10 and none at step 1000, whatever was predicted."""
    states = states_at(0.5)
    early, late = step_monitor.score_states(states, 10), step_monitor.score_states(states, 1000)
    assert early.alarm
    assert not late.alarm
    assert early.predicted == late.predicted > TAU
    assert early.probability == pytest.approx(1 / (1 + np.exp(-(10 * 100 * 0.5 / 10 - 5))))
    assert "at this step" in late.reason


def test_a_step_aware_monitor_asks_for_the_step(
    step_monitor: CheckpointMonitor, monitor: CheckpointMonitor
) -> None:
    """It is required, and at least 1; other monitors do not need it."""
    with pytest.raises(InputError, match="step-aware"):
        step_monitor.score_states(states_at(0.0))
    with pytest.raises(InputError, match="found 0; expected 1 or more"):
        monitor.score_states(states_at(0.0), 0)


def test_nan_raises_the_step_aware_alarm_too(step_monitor: CheckpointMonitor) -> None:
    """A probability of NaN raises the alarm."""
    assert step_monitor.score_states(np.full(SHAPE, np.nan, np.float32), 5).status == "invalid"


def test_a_checkpoint_is_read_as_the_base_was(base: Path, tmp_path: Path) -> None:
    """The drift of a bundle is that of its states on the monitor's prompts."""
    monitor = CheckpointMonitor.load(make_monitor(tmp_path / "monitor", base))
    checkpoint = make_checkpoint(base, tmp_path / "checkpoint", 0.3)
    readings = [monitor.check(path, threads=1) for path in (base, checkpoint)]
    assert readings[0].traits[0].drift != readings[1].traits[0].drift
    assert monitor.check(checkpoint, threads=1) == readings[1]
    assert readings[1].monitor_id == monitor.id


def test_another_model_is_refused_with_every_difference(base: Path, tmp_path: Path) -> None:
    """Shape, vocabulary and tokenizer that differ are each named, found beside expected."""
    monitor = CheckpointMonitor.load(make_monitor(tmp_path / "monitor", base))
    other = make_checkpoint(base, tmp_path / "other", 0.3)
    with (other / "tokenizer.json").open("a") as file:
        file.write("\n")
    reseal(other, architecture="Other", vocabulary=99)
    with pytest.raises(BundleError) as caught:
        monitor.check(other)
    assert [fault.partition(" is ")[0] for fault in caught.value.faults] == [
        "model.architecture",
        "model.vocabulary",
        "tokenizer.json's sha256",
    ]
    assert "'Other'; the base model's is 'Tiny'" in caught.value.faults[0]


def test_a_fine_tune_under_another_name_is_welcome(base: Path, tmp_path: Path) -> None:
    """Name and revision of a checkpoint may differ from the base's."""
    monitor = CheckpointMonitor.load(make_monitor(tmp_path / "monitor", base))
    checkpoint = make_checkpoint(base, tmp_path / "checkpoint", 0.01)
    reseal(checkpoint, id="step-40", revision="abc")
    assert monitor.check(checkpoint, threads=1).checkpoint == "step-40"


def test_weights_of_nan_raise_the_alarm(base: Path, tmp_path: Path) -> None:
    """A checkpoint with NaN weights raises the alarm."""
    monitor = CheckpointMonitor.load(make_monitor(tmp_path / "monitor", base))
    diverged = make_checkpoint(base, tmp_path / "diverged", float("nan"))
    reading = monitor.check(diverged, threads=1)
    assert (reading.alarm, reading.status) == (True, "invalid")


def test_checkpoints_are_read_by_the_text_rules_of_their_base(base: Path) -> None:
    """A checkpoint that a later release exported is laid out as the base was when it was measured.

    The toy tokenizer puts an opening token before a text: by the first rules before a chat as well.
    """
    of_base = Base.from_bundle(Bundle.load(base))
    assert of_base.text.rules_version == 3
    earlier = replace(of_base, text=replace(of_base.text, rules_version=1))
    tokens = {}
    for version, card in ((1, earlier), (2, of_base)):
        reader = TokenReader(load_checkpoint(base, card, 2))
        tokens[version] = reader.read(request("the rain"), {"prompt"})["prompt"].windows[0]
    assert tokens[1] == (2, *tokens[2])
