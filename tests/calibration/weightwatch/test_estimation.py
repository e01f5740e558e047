"""WeightWatch's calibration: directions of a tuning, bounds of clean text, thresholds."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layerguard.calibration import weightwatch
from layerguard.calibration.weights.tuning import adapter_alone, between
from layerguard.calibration.weightwatch.directions import directions
from layerguard.calibration.weightwatch.ranges import Ranges
from layerguard.runtime.errors import CalibrationError, InputError
from layerguard.runtime.types import ROLES, Array
from tests.calibration import cosines
from tests.calibration.checkpoints import BLOCKS, factors, llama_weights, save_adapter, save_model
from tests.calibration.cosines import ASSISTANT, USER, clean_extremes
from tests.reference import ranges as oracle
from tests.reference import spectra
from tests.tolerances import GOLDEN


def _scores(params: dict[str, Array], extremes: Array) -> Array:
    """The textbook excess in float64."""
    low, high, scale = (params[name].astype(np.float64) for name in ("low", "high", "scale"))
    beyond = np.maximum(low - extremes[:, :, 0], extremes[:, :, 1] - high) / scale
    score: Array = beyond.max(axis=(1, 2))
    return score


def test_directions_are_ordered_and_bound_to_their_matrices(tmp_path: Path) -> None:
    """Directions are ordered by state, part and rank; each is the full SVD's singular vector."""
    base = llama_weights()
    tuned = {n: w + 0.1 * np.random.default_rng(len(n)).normal(size=w.shape).astype(np.float32)
             for n, w in base.items()}  # fmt: skip
    tuning = between(save_model(tmp_path / "base", base), save_model(tmp_path / "tuned", tuned))
    found = directions(tuning, BLOCKS, ranks=3)
    keys = list(zip(*(found[name].tolist() for name in ("layers", "parts", "ranks")), strict=True))
    assert keys == [(s, p, r) for s in range(1, BLOCKS + 1) for p in (0, 1) for r in range(3)]
    for i, (state, part, rank) in enumerate(keys):
        name = f"model.layers.{state - 1}." + ("mlp.down_proj", "self_attn.o_proj")[part]
        values, vectors = spectra.directions(base[f"{name}.weight"], tuned[f"{name}.weight"], 3)
        assert found["singular_values"][i] == pytest.approx(values[rank], rel=1e-4)
        assert abs(found["directions"][i] @ vectors[rank]) > 1 - 1e-5
    dtypes = {name: array.dtype.name for name, array in found.items()}
    assert dtypes == {
        "directions": "float32", "layers": "int32", "parts": "uint8", "ranks": "int32",
        "singular_values": "float32",
    }  # fmt: skip


def test_top_states_and_cut_ones_can_be_left_out(tmp_path: Path) -> None:
    """The published rule leaves out the top states; a cut export has no others."""
    tuning = adapter_alone(save_adapter(tmp_path / "adapter", factors()))
    assert set(directions(tuning, BLOCKS)["layers"].tolist()) == {1, 2, 3}
    assert set(directions(tuning, BLOCKS, drop=1)["layers"].tolist()) == {1, 2}
    assert set(directions(tuning, BLOCKS, kept=1)["layers"].tolist()) == {1}
    with pytest.raises(CalibrationError, match="found no change above noise"):
        directions(tuning, BLOCKS, drop=BLOCKS)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    """The number of blocks must be that of the bundle."""
    adapter = adapter_alone(save_adapter(tmp_path / "adapter", factors()))
    base = save_model(tmp_path / "base", llama_weights())
    for tuning, layers in ((adapter, 2), (between(base, base), 5)):
        with pytest.raises(CalibrationError, match=f"have 3 blocks; expected {layers}"):
            directions(tuning, layers)


def test_an_untuned_model_is_refused(tmp_path: Path) -> None:
    """An unchanged model is refused."""
    base = save_model(tmp_path / "base", llama_weights())
    with pytest.raises(CalibrationError, match="differs from its base"):
        directions(between(base, base), BLOCKS)


def test_golden_directions_ranges_and_flags(shared: Path) -> None:
    """The published vectors to 1e-5 up to sign; ranges to 1e-5; every flag exactly."""
    golden = json.loads((shared / "golden" / "weightwatch_golden.json").read_text())
    for state, down, out in zip(golden["us"][1:], golden["dW_down"], golden["dW_o"], strict=True):
        for matrix, published in ((down, state[:3]), (out, state[3:])):
            _, vectors = spectra.directions(np.zeros_like(matrix), matrix, 3)
            np.testing.assert_allclose(np.abs(np.sum(vectors * published, axis=1)), 1, atol=GOLDEN)
    known = {name: _golden_extremes(golden, name) for name in ("cal", "test")}
    mine = cosines.directions(24, width=24)
    flags = []
    ranges = None
    for item in known["cal"]:
        low, high = (
            ranges.trimmed() if ranges else (np.full((4, 24), np.inf), -np.full((4, 24), np.inf))
        )
        flags.append(oracle.flagged(low[USER], high[USER], item[USER, 0], item[USER, 1]))
        one = Ranges.of(item[None])
        ranges = one if ranges is None else ranges.merged(one)
    assert flags == golden["stream_flags"]
    params = weightwatch.fit(known["cal"], mine, mode="reference", target_fpr=0.1)
    for name, published in (("low", "minima"), ("high", "maxima")):
        expected = np.concatenate([np.array(s) for s in golden[published] if len(s)])
        np.testing.assert_allclose(params[name][USER], expected, atol=GOLDEN)
    score = _scores(params, known["test"])
    assert (score > params["threshold"]).tolist() == golden["test_flags"]


def _golden_extremes(golden: dict[str, Any], name: str) -> Array:
    """The extremes of the items, float32 [n, 4, 2, K], with every token in the user's role."""
    items = [oracle.extremes(np.array(item).swapaxes(0, 1), golden["us"]) for item in golden[name]]
    extremes = np.empty((len(items), len(ROLES), 2, len(items[0][0])), np.float32)
    extremes[:, :, 0], extremes[:, :, 1] = np.inf, -np.inf
    extremes[:, USER] = np.array(items)
    return extremes


@pytest.mark.parametrize("mode", ["cross-fit", "reference"])
def test_parameters_are_what_the_detector_takes(mode: weightwatch.Mode) -> None:
    """Names, dtypes and shapes; bounds in order, scales positive."""
    params = weightwatch.fit(clean_extremes(100, 1), cosines.directions(), mode, target_fpr=0.1)
    k = 6
    expected = {
        "directions": ("float32", (k, 8)), "layers": ("int32", (k,)), "parts": ("uint8", (k,)),
        "ranks": ("int32", (k,)), "singular_values": ("float32", (k,)),
        "low": ("float32", (4, k)), "high": ("float32", (4, k)), "scale": ("float32", (4, k)),
        "roles_seen": ("bool", (4,)), "threshold": ("float64", ()),
        "clean_scores": ("float64", (100,)), "target_fpr": ("float64", ()),
        "fpr_interval": ("float64", (2,)),
    }  # fmt: skip
    assert {name: (a.dtype.name, a.shape) for name, a in params.items()} == expected
    assert (params["low"] <= params["high"]).all()
    assert (params["scale"] > 0).all()


def test_roles_that_no_row_had_hold_the_users_bounds() -> None:
    """Roles without rows have the user's bounds; the settings list the roles seen."""
    mine = cosines.directions()
    for mode in ("cross-fit", "reference"):
        trained = weightwatch.train(clean_extremes(50, 2, roles=(USER,)), mine, mode)
        params = trained.params
        assert params["roles_seen"].tolist() == [role == USER for role in range(4)]
        for name in ("low", "high", "scale"):
            assert (params[name] == params[name][USER]).all()
        assert trained.settings["roles_seen"] == ["user"]
        both = weightwatch.train(clean_extremes(50, 2), mine, mode)
        assert both.settings["roles_seen"] == ["user", "assistant"]
        assert not (both.params["low"][ASSISTANT] == both.params["low"][USER]).any()


def test_rows_without_a_user_are_refused() -> None:
    """Rows without tokens of the user are refused."""
    for mode in ("cross-fit", "reference"):
        with pytest.raises(CalibrationError, match="user's tokens"):
            weightwatch.fit(
                clean_extremes(50, 3, roles=(ASSISTANT,)),
                cosines.directions(),
                mode,
                target_fpr=0.1,
            )


def test_rows_of_prompts_and_of_answers_can_be_mixed() -> None:
    """The bounds of a role depend only on rows with tokens of that role."""
    mine, extremes = cosines.directions(), clean_extremes(80, 9)
    mixed = extremes.copy()
    mixed[::2, ASSISTANT, 0], mixed[::2, ASSISTANT, 1] = np.inf, -np.inf
    for mode in ("cross-fit", "reference"):
        trained = weightwatch.train(mixed, mine, mode)
        answers = weightwatch.fit(extremes[1::2], mine, mode, target_fpr=0.1)
        whole = weightwatch.fit(extremes, mine, mode, target_fpr=0.1)
        for name in ("low", "high", "scale"):
            assert (trained.params[name][ASSISTANT] == answers[name][ASSISTANT]).all()
            assert (trained.params[name][USER] == whole[name][USER]).all()
        assert np.isfinite(trained.held_out).all()


@pytest.mark.parametrize("target", [0.1, 0.02])
def test_the_realised_rate_is_the_target(target: float) -> None:
    """The mean rate over draws of 300 rows is within four standard errors of its expectation."""
    mine, fresh, draws = cosines.directions(), clean_extremes(4000, 99), 12
    rates = []
    for draw in range(draws):
        params = weightwatch.fit(clean_extremes(300, draw), mine, target_fpr=target, seed=draw)
        rates.append(float(np.mean(_scores(params, fresh) > params["threshold"])))
    error = np.sqrt(target * (1 - target) * (1 / 300 / draws + 1 / 4000))
    assert abs(np.mean(rates) - target) < 4 * error + 1 / 301


def test_held_out_scores_come_from_other_rows() -> None:
    """An outlier's score uses bounds fitted without it; a group counts once."""
    extremes = clean_extremes(40, 5)
    extremes[7, USER, 1, 0] = 0.9
    trained = weightwatch.train(extremes, cosines.directions(), "reference")
    rest = np.delete(extremes, 7, axis=0)
    assert trained.held_out[7] == pytest.approx(0.9 - rest[:, USER, 1, 0].max(), abs=1e-6)
    groups = np.repeat(np.arange(20), 2)
    grouped = weightwatch.fit(extremes, cosines.directions(), groups=groups, target_fpr=0.1)
    assert len(grouped["clean_scores"]) == 20


def test_by_source_scores_use_bounds_of_the_other_sources() -> None:
    """The bounds are those of all rows; each score is over the bounds without the source."""
    extremes, mine = clean_extremes(60, 5), cosines.directions()
    sources = [("web", "chat", "mail")[i % 3] for i in range(60)]
    extremes[1::3, USER, 1] += 0.2
    trained = weightwatch.train(extremes, mine, "by-source", sources=sources)
    others = np.array(sources) != "chat"
    rest = weightwatch.fit(extremes[others], mine, target_fpr=0.1)
    assert trained.held_out[~others].tolist() == _scores(rest, extremes[~others]).tolist()
    assert trained.settings["sources"] == 3
    assert "folds" not in trained.settings
    all_rows = weightwatch.train(extremes, mine).params
    assert all(trained.params[name].tobytes() == all_rows[name].tobytes() for name in all_rows)


def test_a_direction_that_hardly_varies_raises_no_alarm_alone() -> None:
    """A change of 0.001 in a constant cosine raises no alarm."""
    extremes = clean_extremes(100, 6)
    extremes[:, :, :, 5] = 0.1
    params = weightwatch.fit(extremes, cosines.directions(), target_fpr=0.1)
    moved = extremes.copy()
    moved[:, USER, 1, 5] += 0.001
    before, after = (np.mean(_scores(params, e) > params["threshold"]) for e in (extremes, moved))
    assert after == before


def test_strong_directions_count_for_more() -> None:
    """An equal excess scores twice as high for a singular value four times as large."""
    mine = cosines.directions(2)
    mine["singular_values"] = np.array([4, 1], np.float32)
    extremes = clean_extremes(200, 7, k=2)
    extremes[..., 1] = extremes[..., 0]
    scale = weightwatch.fit(extremes, mine, target_fpr=0.1)["scale"][USER]
    assert scale[1] == pytest.approx(2 * scale[0])


def test_the_same_rows_give_the_same_bytes() -> None:
    """Equal arguments give equal bytes; another seed gives other folds."""
    extremes, mine = clean_extremes(60, 8), cosines.directions()
    one, same, other = (
        weightwatch.fit(extremes, mine, seed=seed, target_fpr=0.1) for seed in (1, 1, 2)
    )
    assert all(one[name].tobytes() == same[name].tobytes() for name in one)
    assert one["clean_scores"].tobytes() != other["clean_scores"].tobytes()


def test_what_cannot_be_calibrated_is_refused() -> None:
    """Too few rows, too low a target, another shape, NaN and an unknown mode are refused."""
    mine = cosines.directions()
    with pytest.raises(CalibrationError, match="found 9 clean conversations"):
        weightwatch.fit(clean_extremes(9, 1), mine, target_fpr=0.1)
    with pytest.raises(CalibrationError, match="at least 99"):
        weightwatch.fit(clean_extremes(50, 1), mine, target_fpr=0.01)
    with pytest.raises(InputError, match=r"expected float32 \[n, 4, 2, 6\]"):
        weightwatch.fit(clean_extremes(50, 1, k=5), mine, target_fpr=0.1)
    broken = clean_extremes(50, 1)
    broken[3, USER, 0, 0] = np.nan
    with pytest.raises(CalibrationError, match="found NaN"):
        weightwatch.fit(broken, mine, target_fpr=0.1)
    same = np.repeat(clean_extremes(1, 1), 50, axis=0)
    with pytest.raises(CalibrationError, match="same extremes in all"):
        weightwatch.fit(same, mine, target_fpr=0.1)
    with pytest.raises(InputError, match="cross-fit, by-source, reference"):
        weightwatch.fit(clean_extremes(50, 1), mine, mode="loo", target_fpr=0.1)  # type: ignore[arg-type]
