"""Fitting a drift monitor from states: directions, drift, the choice, the step-aware alarm."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from layerguard.calibration import drift
from layerguard.calibration.drift.directions import direction, probe_accuracy, separation
from layerguard.calibration.drift.runs import Checkpoint
from layerguard.calibration.drift.training import MonitorParameters, train
from layerguard.calibration.drift.validation import held_out_predictions
from layerguard.runtime.drift.regressor import predict
from layerguard.runtime.drift.step_aware import step_features, step_probability
from layerguard.runtime.errors import CalibrationError, InputError
from layerguard.runtime.types import Array
from tests.reference import drift as oracle

WIDTH, PROMPTS, TRAITS = 24, 6, 3
PERTURBATIONS = ("advice", "code", "jokes", "maths")


def cloud(rng: np.random.Generator, *shape: int) -> Array:
    """Random states."""
    states: Array = rng.normal(size=(*shape, WIDTH)).astype(np.float32)
    return states


def make(seed: int = 0, *, anchor: bool = False) -> dict[str, Any]:
    """Arguments of ``fit``: runs of five steps that drift along the first trait into misalignment.

    The runs on maths stay where they are. An anchor is a long benign run that drifts as far.
    """
    rng = np.random.default_rng(seed)
    axes = np.eye(TRAITS, WIDTH, dtype=np.float32)[:, None, None, :]
    positive, negative = cloud(rng, TRAITS, 4, 5) + 3 * axes, cloud(rng, TRAITS, 4, 5) - 3 * axes
    base = cloud(rng, PROMPTS)
    runs, checkpoints = [], []
    for perturbation in PERTURBATIONS:
        for step in range(1, 6):
            moved = 0.0 if perturbation == "maths" else 0.4 * step
            checkpoints.append(base + moved * axes[0, 0] + 0.02 * cloud(rng, PROMPTS))
            rate = 0.0 if moved < 1 else 0.2 * moved
            runs.append(Checkpoint("", perturbation, perturbation, step, rate))
    if anchor:
        for step in range(100, 1100, 100):
            checkpoints.append(base + 0.002 * step * axes[0, 0])
            runs.append(Checkpoint("", "anchor", "support", step, 0.0))
    return {
        "positive": positive, "negative": negative, "base": base,
        "checkpoints": checkpoints, "runs": runs,
    }  # fmt: skip


@pytest.fixture(scope="module")
def trained() -> MonitorParameters:
    """A monitor of the runs above."""
    return train(**make())


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 5))
def test_a_direction_is_the_published_one(seed: int, prompts: int, questions: int) -> None:
    """The unit difference of means, equal to the oracle's within float32."""
    rng = np.random.default_rng(seed)
    positive, negative = cloud(rng, prompts, questions), cloud(rng, prompts, questions)
    found = direction(positive, negative, "a")
    expected = oracle.direction(
        positive.reshape(-1, WIDTH).tolist(), negative.reshape(-1, WIDTH).tolist()
    )
    assert found.dtype == np.float32
    assert np.abs(found - np.array(expected)).max() <= 2.0**-24


def test_swapping_the_poles_turns_the_direction() -> None:
    """Antisymmetric, to the bit."""
    rng = np.random.default_rng(1)
    positive, negative = cloud(rng, 2, 3), cloud(rng, 2, 3)
    assert (direction(positive, negative, "a") == -direction(negative, positive, "a")).all()


def test_the_parameters_are_those_of_the_paper(trained: MonitorParameters) -> None:
    """Base projection, norm and each checkpoint's drift equal the oracle's."""
    given_, params = make(), trained.params
    base = given_["base"].tolist()
    assert float(params["base_norm"]) == pytest.approx(oracle.norm(base), rel=1e-14)
    for trait, unit in enumerate(params["directions"].tolist()):
        assert params["base_projection"][trait] == pytest.approx(
            oracle.projection(base, unit), abs=1e-13
        )
        for number in (0, 7, 19):
            states = given_["checkpoints"][number].tolist()
            assert params["calibration_drift"][number, trait] == pytest.approx(
                oracle.drift(states, base, unit), abs=1e-13
            )


def test_the_same_input_gives_the_same_bytes(trained: MonitorParameters) -> None:
    """All random choices are seeded as published."""
    again = drift.fit(**make())
    assert again.keys() == trained.params.keys()
    assert all(again[name].tobytes() == a.tobytes() for name, a in trained.params.items())


def test_the_choice_is_by_perturbations_left_out(trained: MonitorParameters) -> None:
    """Metrics are pooled over held-out perturbations; the best regressor is frozen."""
    runs, moved = make()["runs"], trained.params["calibration_drift"]
    rates = [row.misalignment for row in runs]
    for candidate in trained.candidates:
        predicted = held_out_predictions(moved, runs, candidate.regressor).tolist()
        assert candidate.balanced_accuracy == pytest.approx(
            oracle.balanced_accuracy(predicted, rates, 0.05)
        )
    best = max(c.balanced_accuracy for c in trained.candidates)
    chosen = next(c for c in trained.candidates if c.regressor == trained.regressor)
    assert chosen.balanced_accuracy == best
    assert chosen.auroc > 0.9


@pytest.mark.parametrize("seed", range(3))
def test_what_is_no_better_than_chance_is_refused(seed: int) -> None:
    """Labels that have nothing to do with the drift give no monitor."""
    arguments = make()
    order = np.random.default_rng(seed).permutation(len(arguments["runs"]))
    arguments["runs"] = [
        replace(row, misalignment=arguments["runs"][other].misalignment)
        for row, other in zip(arguments["runs"], order, strict=True)
    ]
    with pytest.raises(CalibrationError, match="better than chance: the best, "):
        train(**arguments)


def test_copies_are_no_evidence() -> None:
    """Four checkpoints, however often they are given, can be told apart by chance."""
    arguments = make()
    chosen = [0, 4, 5, 9] * 5
    arguments["checkpoints"] = [arguments["checkpoints"][i] for i in chosen]
    arguments["runs"] = [replace(arguments["runs"][i], run=str(n)) for n, i in enumerate(chosen)]
    with pytest.raises(CalibrationError, match=r"accuracy of 100\.0% .* \(p = 0\.17\)"):
        train(**arguments)


def test_a_perturbation_left_out_is_left_out() -> None:
    """Labels of a perturbation do not move the predictions for it."""
    runs = make()["runs"]
    moved = np.random.default_rng(0).normal(size=(len(runs), TRAITS))
    own = [row.perturbation == "jokes" for row in runs]
    wrong = [replace(r, misalignment=1.0) if o else r for r, o in zip(runs, own, strict=True)]
    before = held_out_predictions(moved, runs, "ridge")
    after = held_out_predictions(moved, wrong, "ridge")
    assert (before[own] == after[own]).all()
    assert (before != after).any()


def test_the_frozen_regressor_knows_its_checkpoints(trained: MonitorParameters) -> None:
    """The frozen regressor predicts more for dangerous checkpoints than for benign ones."""
    predicted = predict(trained.params, trained.params["calibration_drift"])
    rates = trained.params["calibration_rates"]
    assert predicted[rates > 0.2].min() > predicted[rates == 0].max()


def test_the_step_aware_alarm_is_scikit_learns() -> None:
    """Component, scaler and logistic model equal scikit-learn's PCA and pipeline on that data."""
    arguments = make(anchor=True)
    params = drift.fit(**arguments, step_aware=True)
    runs, moved = arguments["runs"], params["calibration_drift"]
    last = [i for i, row in enumerate(runs) if row.step in (5, 1000)]
    component = PCA(1).fit(moved[last]).components_[0]
    assert abs(component @ params["step_component"]) == pytest.approx(1, abs=1e-12)
    steps = np.array([row.step for row in runs])
    features = step_features(moved, steps, component)
    expected = 100 * np.abs(moved @ component)
    assert features == pytest.approx(np.stack([expected, steps, expected / steps], 1), abs=1e-12)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, random_state=42))
    pipeline.fit(features, [row.misalignment > 0.05 for row in runs])
    probability = step_probability(params, moved, steps)
    assert probability == pytest.approx(pipeline.predict_proba(features)[:, 1], abs=1e-6)
    anchor = [row.run == "anchor" for row in runs]
    assert (probability[anchor] < 0.5).all()


def test_a_step_aware_alarm_needs_a_long_benign_run() -> None:
    """Without a long benign run the fit is refused; the message has the lengths of the runs."""
    with pytest.raises(CalibrationError, match="ends at step 5, the longest other at 5"):
        drift.fit(**make(), step_aware=True)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"tau": 0.0}, "tau: found 0.0"),
        ({"tau": 0.99}, "found 0 of 20 above tau"),
        ({"positive": []}, "found 0 positive and 3 negative"),
        ({"positive": np.zeros((3, 4, 5, 8), np.float32)}, "for each pole, with equal shapes"),
        ({"base": np.zeros((0, WIDTH))}, "base: found states"),
        ({"base": np.full((PROMPTS, WIDTH), np.nan)}, "base: its states are not finite"),
        ({"positive": np.full((3, 4, 5, WIDTH), np.inf)}, "trait 0: its states are not finite"),
        ({"checkpoints": [np.zeros((PROMPTS, 8))] * 20}, "run 'advice', step 1: found states"),
        (
            {"checkpoints": [np.full((PROMPTS, WIDTH), np.nan)] * 20},
            "run 'advice', step 1: its states are not finite",
        ),
        ({"runs": make()["runs"][:9]}, "found 9 checkpoints; expected 10 or more"),
        (
            {"runs": [replace(row, perturbation="one") for row in make()["runs"]]},
            "two or more, because each is left out once",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_fitted_is_refused(change: dict[str, Any], expected: str) -> None:
    """The message names the argument, or what is missing in the runs."""
    with pytest.raises((InputError, CalibrationError), match=expected):
        drift.fit(**{**make(), **change})


def test_equal_poles_are_refused() -> None:
    """Equal poles, as from a template that drops the system prompt, are refused."""
    arguments = make()
    arguments["positive"][1] = arguments["negative"][1]
    with pytest.raises(CalibrationError, match="trait 1: the model's mean state is the same"):
        drift.fit(**arguments)


def test_separation_is_of_prompts_it_never_saw() -> None:
    """Random differences between prompts give no separation; a common shift does."""
    rng = np.random.default_rng(0)
    offsets = rng.normal(size=(2, 5, 1, 400))
    noise = 0.1 * rng.normal(size=(2, 5, 8, 400))
    by_heart = offsets + noise
    assert probe_accuracy(*by_heart) == 1.0
    assert abs(separation(*by_heart)) < 1.5
    shared = by_heart + 2 * np.array([1.0, -1.0])[:, None, None, None] * np.eye(1, 400)
    assert separation(*shared) > separation(*by_heart)
    assert separation(*(7 * shared)) == pytest.approx(separation(*shared))
