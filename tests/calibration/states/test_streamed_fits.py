"""Fits over states in blocks give the parameters of fits in memory, for any block size."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from layerguard.calibration import lcf, siren, weightwatch
from layerguard.calibration.lcf import estimation
from layerguard.calibration.rows.folds import group_codes, random_folds
from layerguard.calibration.rows.stratified import stratified_folds
from layerguard.calibration.siren.probes import STRENGTHS, select, select_neurons
from layerguard.calibration.states import blockwise as states_module
from layerguard.calibration.states import recording as recording_module
from layerguard.calibration.states.blockwise import States
from layerguard.calibration.states.recording import Recording
from layerguard.runtime.types import Array
from tests.calibration import cosines
from tests.calibration.synthetic import clean_states, labelled_states
from tests.reference import lcf_fit

N = 64
SAME = 1e-6
Hold = Callable[[Array], Array | States]


@pytest.fixture
def on_disk() -> Iterator[Hold]:
    """Writes states into a temporary file, in parts of different sizes."""
    with ExitStack() as opened:

        def write(states: Array) -> States:
            found = opened.enter_context(Recording(len(states), memory_bytes=0))
            for start in range(0, len(states), 13):
                found.append(states[start : start + 13])
            assert found.on_disk
            return found

        yield write


@pytest.fixture(params=["array", "memmap", "disk"])
def hold(request: pytest.FixtureRequest, tmp_path: Path, on_disk: Hold) -> Hold:
    """Holds the states in memory or on disk."""

    def mapped(states: Array) -> Array:
        np.save(tmp_path / "states.npy", states)
        found: Array = np.load(tmp_path / "states.npy", mmap_mode="r")
        return found

    places: dict[str, Hold] = {"array": lambda s: s, "memmap": mapped, "disk": on_disk}
    return places[request.param]


@pytest.fixture(params=[1, 7, N - 1, N, N + 1])
def cut(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Sets the number of rows in a block."""
    for user in (states_module, recording_module):
        monkeypatch.setattr(user, "rows_at_once", lambda *_: request.param)
    return int(request.param)


def hard_states() -> Array:
    """One dimension in the thousands, one nearly constant, one constant."""
    states = clean_states(N, seed=1, layers=4, width=20)
    states[:, :, 3] *= 1000
    states[:, :, 4] *= 1e-5
    states[:, :, 5] = 1
    return states


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("mode", ["cross-fit", "loo", "reference"])
def test_lcf_is_that_of_all_rows_in_memory(hold: Hold, mode: lcf.Mode, grouped: bool) -> None:
    """Parameters and held-out scores agree to 1e-6, with and without groups."""
    states = hard_states()
    groups = [f"text {i // 3 % 17}" for i in range(N)] if grouped else None
    codes = group_codes(groups, N)
    found = lcf.train(hold(states), mode, 0.1, 5, groups)
    if mode == "reference":
        expected, z = lcf_fit.parameters(states, lambda s: np.maximum(s, 1e-8))
        held_out = lcf_fit.published(z)
        assert found.published is not None
        np.testing.assert_allclose(found.published.clean_scores, np.sort(held_out), rtol=SAME)
    else:
        expected, _ = lcf_fit.parameters(states, estimation._floored)
        folds = codes if mode == "loo" else random_folds(codes, min(20, codes.max() + 1), 5)
        held_out = lcf_fit.held_out(states, folds, estimation._floored)
    for name, value in expected.items():
        np.testing.assert_allclose(found.params[name], value, rtol=SAME, atol=SAME)
    np.testing.assert_allclose(found.held_out, held_out, rtol=SAME)


@pytest.mark.usefixtures("small_grid")
def test_siren_reads_layers_as_it_reads_arrays(hold: Hold) -> None:
    """The parameters are equal to the bit, because training is not continuous."""
    states, labels = labelled_states(120, seed=0)
    expected = siren.train(states, labels)
    found = siren.train(hold(states), labels)
    assert found.settings == expected.settings
    assert found.held_out.tobytes() == expected.held_out.tobytes()
    for name, value in expected.params.items():
        assert found.params[name].tobytes() == value.tobytes()


@pytest.mark.parametrize("some", [False, True])
def test_probes_are_those_of_the_whole_layer(
    hold: Hold, some: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Standardising 5 columns and 7 rows at a time gives the same neurons and scores."""
    monkeypatch.setattr("layerguard.calibration.siren.probes._COLUMNS", 5)
    monkeypatch.setattr("layerguard.calibration.siren.probes._ROWS", 7)
    states, labels = labelled_states(150, seed=2, shift=0.7)
    rows = np.sort(np.random.default_rng(0).permutation(150)[:120]) if some else np.arange(150)
    found = select(hold(states), labels, np.arange(150), 0.9, 3, rows if some else None)
    chosen, known = states[rows], labels[rows]
    training, _ = stratified_folds(known, rows, 5, 3)[0]
    for layer, neurons, strength in zip(found.layers, found.neurons, found.strengths, strict=True):
        x = chosen[:, layer].astype(np.float64)
        standard = (x - x[training].mean(axis=0)) / x[training].std(axis=0)
        assert strength in STRENGTHS
        probe = LogisticRegression(
            l1_ratio=1.0, C=strength / len(training), solver="liblinear", tol=1e-3, random_state=3
        ).fit(standard[training], known[training])
        assert neurons.tolist() == select_neurons(probe.coef_[0], 0.9).tolist()
    features = found.features(hold(states), rows[::2])
    assert features.tobytes() == found.features(states)[rows[::2]].tobytes()


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("mode", ["cross-fit", "reference"])
def test_weightwatch_reads_roles_as_it_reads_arrays(on_disk: Hold, mode: weightwatch.Mode) -> None:
    """Equal to the bit; held-out scores use bounds fitted on the other rows only."""
    extremes, mine = cosines.clean_extremes(N, 3), cosines.directions()
    extremes[::3, cosines.ASSISTANT, 0], extremes[::3, cosines.ASSISTANT, 1] = np.inf, -np.inf
    expected = weightwatch.train(extremes, mine, mode, seed=2)
    found = weightwatch.train(on_disk(extremes.reshape(N, 8, -1)), mine, mode, seed=2)
    assert found.settings == expected.settings
    assert found.held_out.tobytes() == expected.held_out.tobytes()
    for name, value in expected.params.items():
        assert found.params[name].tobytes() == value.tobytes()
    fold = random_folds(np.arange(N), 20, 2) == 4
    rest = weightwatch.fit(extremes[~fold], mine, mode, target_fpr=0.1)
    low, high, scale = (rest[name].astype(np.float64) for name in ("low", "high", "scale"))
    held = extremes[fold]
    beyond = np.maximum(low - held[:, :, 0], held[:, :, 1] - high) / scale
    np.testing.assert_allclose(found.held_out[fold], beyond.max(axis=(1, 2)), rtol=1e-5, atol=1e-6)
