"""SIREN's training: returned parameters, thresholds and errors."""

import math

import numpy as np
import pytest

from layerguard.calibration import siren
from layerguard.calibration.rows.folds import group_codes
from layerguard.calibration.siren import training
from layerguard.calibration.thresholds import conformal
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.errors import CalibrationError, InputError
from layerguard.runtime.types import Array
from tests.calibration.synthetic import LAYERS, WIDTH, labelled_states

pytestmark = pytest.mark.usefixtures("small_grid")
TARGET = 0.05


@pytest.fixture(scope="module")
def data() -> tuple[Array, Array]:
    """240 rows, 80 of them harmful."""
    return labelled_states(240, seed=0)


def scores(params: dict[str, Array], states: Array) -> Array:
    """Scores of the bound detector."""
    layers = np.ascontiguousarray(states.transpose(1, 0, 2))
    return np.array([r.score for r in REGISTRY["siren"].bind(params).score_pooled(layers)])


def test_params_are_fit_to_be_served(data: tuple[Array, Array]) -> None:
    """The registry finds no fault, and new harmful rows score higher."""
    params = siren.fit(*data, target_fpr=TARGET)
    assert REGISTRY["siren"].faults(params, LAYERS, WIDTH) == []
    states, labels = labelled_states(300, seed=1)
    found = scores(params, states)
    assert np.mean(found[labels == 1][:, None] > found[labels == 0][None, :]) > 0.9
    flagged = found > params["threshold"]
    assert flagged[labels == 0].mean() < 0.15
    assert flagged[labels == 1].mean() > 0.4


def test_threshold_is_conformal_over_held_out_clean_rows(data: tuple[Array, Array]) -> None:
    """There is one clean score for each clean row; they give the threshold and its interval."""
    params = siren.fit(*data, target_fpr=TARGET)
    assert len(params["clean_scores"]) == 160
    assert params["threshold"] == conformal.threshold(params["clean_scores"], TARGET)
    assert params["fpr_interval"].tolist() == conformal.fpr_interval(160, TARGET).tolist()


def test_held_out_scores_come_from_networks_that_never_saw_the_row() -> None:
    """With random labels, held-out scores do not separate the labels; in-sample scores would."""
    states, _ = labelled_states(240, seed=2, shift=0.0)
    labels = np.random.default_rng(0).integers(0, 2, 240)
    choice = training._choose(states, labels, np.arange(240), eta=0.9, seed=0)
    clean, harmful = (choice.held_out[labels == label] for label in (0, 1))
    assert 0.35 < np.mean(harmful[:, None] > clean[None, :]) < 0.65


def test_groups_count_once_and_stay_together(data: tuple[Array, Array]) -> None:
    """Windows of a text form a group; each group with clean rows has one clean score."""
    states, labels = data
    groups = [f"text {i // 4}" for i in range(len(labels))]
    params = siren.fit(states, labels, groups, target_fpr=TARGET)
    codes = group_codes(groups, len(labels))
    assert len(params["clean_scores"]) == len(set(codes[labels == 0].tolist()))


def test_same_inputs_give_the_same_bytes(data: tuple[Array, Array]) -> None:
    """Equal seeds give equal bytes; another seed gives another network."""
    first, second, third = (siren.fit(*data, seed=seed, target_fpr=TARGET) for seed in (5, 5, 6))
    assert {k: v.tobytes() for k, v in first.items()} == {k: v.tobytes() for k, v in second.items()}
    assert first["weight_0"].tobytes() != third["weight_0"].tobytes()


def test_settings_tell_what_was_chosen(data: tuple[Array, Array]) -> None:
    """The settings record the choices as plain JSON values."""
    settings = siren.train(*data, eta=0.8).settings
    assert settings["eta"] == 0.8
    assert (settings["decay"], settings["epochs"]) == (0.01, 8)
    assert 0.5 < settings["held_out_auroc"] <= 1
    assert len(settings["probe_macro_f1"]) == len(settings["probe_strengths"]) == LAYERS
    assert settings["harmful"] == 80


def test_a_smaller_eta_takes_fewer_neurons(data: tuple[Array, Array]) -> None:
    """A smaller eta chooses fewer neurons."""
    few, many = (siren.fit(*data, eta=eta, target_fpr=TARGET) for eta in (0.5, 1.0))
    assert len(few["neurons"]) < len(many["neurons"])


@pytest.mark.parametrize(("label", "name"), [(0, "harmful"), (1, "clean")])
def test_one_label_alone_is_refused(data: tuple[Array, Array], label: int, name: str) -> None:
    """The message names the missing label."""
    states, labels = data
    with pytest.raises(CalibrationError, match=f"found 0 {name} texts"):
        siren.fit(states, np.full(len(labels), label), target_fpr=TARGET)


def test_a_rare_label_is_refused(data: tuple[Array, Array]) -> None:
    """Nine harmful texts are too few for the folds, even with many windows."""
    states, labels = data
    row = np.arange(len(labels))
    groups = np.where(labels == 1, row // 3 % 9, row + 100)
    with pytest.raises(CalibrationError, match=r"found 9 harmful texts .* at least 10"):
        siren.fit(states, labels, groups, target_fpr=TARGET)


def test_a_target_that_the_clean_rows_cannot_support_is_refused(data: tuple[Array, Array]) -> None:
    """160 clean rows suffice for 1 %, not for 0.1 %."""
    with pytest.raises(CalibrationError, match="at least 999 clean prompts, found 160"):
        siren.fit(*data, target_fpr=0.001)


@pytest.mark.parametrize("labels", [np.full(240, 2), np.full(240, math.nan), np.zeros(239)])
def test_labels_that_are_none_are_refused(data: tuple[Array, Array], labels: Array) -> None:
    """Other values and another number of labels are refused."""
    with pytest.raises(InputError, match="labels: found"):
        siren.fit(data[0], labels)


@pytest.mark.parametrize("eta", [0.0, 1.5, math.nan])
def test_eta_outside_its_range_is_refused(data: tuple[Array, Array], eta: float) -> None:
    """Eta must be above 0 and at most 1."""
    with pytest.raises(InputError, match="eta: found"):
        siren.fit(*data, eta=eta)


def test_a_row_that_is_not_finite_is_named(data: tuple[Array, Array]) -> None:
    """The message has row and state, as for LCF."""
    states = data[0].copy()
    states[11, 3, 1] = math.nan
    with pytest.raises(CalibrationError, match="row 11 is not finite at state 3"):
        siren.fit(states, data[1], target_fpr=TARGET)


def test_a_constant_dimension_is_no_obstacle(data: tuple[Array, Array]) -> None:
    """A constant dimension gets no weight, and the parameters are finite."""
    states = data[0].copy()
    states[:, :, 5] = 3.0
    params = siren.fit(states, data[1], eta=1.0, target_fpr=TARGET)
    assert REGISTRY["siren"].faults(params, LAYERS, WIDTH) == []


def test_folds_hold_out_sources() -> None:
    """Harm that looks different in each source is found within a source, not in a new one."""
    states, _ = labelled_states(360, seed=3, shift=0.0)
    labels, sources = np.arange(360) % 2, np.arange(360) // 2 % 3
    for source in range(3):
        states[(labels == 1) & (sources == source), 1:, source] += 8.0
    by_prompt, by_source = (
        siren.train(states, labels, sources=given).settings for given in (None, sources)
    )
    assert (by_prompt["folds_by"], by_source["folds_by"]) == ("prompt", "source")
    assert by_prompt["held_out_auroc"] > 0.9
    assert by_source["held_out_auroc"] < 0.7


def test_sources_of_another_number_are_refused(data: tuple[Array, Array]) -> None:
    """Sources are one for each row."""
    with pytest.raises(InputError, match="groups: found 3, expected 240"):
        siren.fit(*data, sources=[0, 1, 2])
