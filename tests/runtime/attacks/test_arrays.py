"""Frozen parameters that are well-formed arrays and not fit to be served."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layerguard.runtime.types import Array
from tests.runtime.tamper import arrays_of, put_arrays, refused
from tests.tiny import make_params

_ARRAYS = {
    f"{detector}/{name}": array
    for detector, mine in make_params().items()
    for name, array in mine.items()
}
_FLOATS = [name for name, array in _ARRAYS.items() if array.dtype.kind == "f"]


@pytest.mark.parametrize("name", _ARRAYS)
def test_missing_arrays_are_named(bundle: Path, name: str) -> None:
    """Each array is needed, and named with the dtype and shape it should have."""
    found = "is unknown" if name == "siren/weight_1" else "is missing; expected"
    refused(put_arrays(bundle, {name: None}), found, name.replace("weight_1", "bias_1"))


@pytest.mark.parametrize("name", _ARRAYS)
def test_other_dtypes_are_named(bundle: Path, name: str) -> None:
    """An array of another dtype is refused, never cast."""
    other = np.int64 if _ARRAYS[name].dtype != np.int64 else np.int32
    for dtype in (other, np.float16):
        changed = _ARRAYS[name].astype(dtype)
        refused(put_arrays(bundle, {name: changed}), f"{name} is {np.dtype(dtype)}", "expected")


@pytest.mark.parametrize("name", _ARRAYS)
def test_another_rank_is_named(bundle: Path, name: str) -> None:
    """An array with one side more is refused with both shapes."""
    refused(put_arrays(bundle, {name: _ARRAYS[name][None]}), f"{name} is", "[1", "expected")


@pytest.mark.parametrize("name", _FLOATS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_counted(bundle: Path, name: str, value: float) -> None:
    """One NaN or infinity in any array, and the bundle is not served."""
    array = np.array(_ARRAYS[name])
    array.reshape(-1)[-1] = value
    refused(put_arrays(bundle, {name: array}), f"{name} has 1 values that are not finite")


def _changed(name: str, **places: Any) -> Array:
    """A copy of an array with the values at some flat places replaced."""
    array = np.array(_ARRAYS[name])
    for place, value in places.items():
        array.reshape(-1)[int(place[1:])] = value
    return array


_ZEROS = np.zeros((3, 16), np.float32)
_CASES: dict[str, tuple[dict[str, Array | None], tuple[str, ...]]] = {
    "sigma-zero": ({"lcf/sigma": _changed("lcf/sigma", _5=0)}, ("lcf/sigma", "zero or less")),
    "sigma-negative": ({"lcf/sigma": _changed("lcf/sigma", _5=-1)}, ("lcf/sigma", "positive")),
    "sigma-all-zero": ({"lcf/sigma": _ZEROS}, ("lcf/sigma has values of zero or less",)),
    "sigma-below-float32": ({"lcf/sigma": _changed("lcf/sigma", _5=1e-40)}, ("lcf", "sigma")),
    "scale-zero": (
        {"lcf/score_scale": _changed("lcf/score_scale", _0=0)},
        ("lcf/score_scale has values of zero or less",),
    ),
    "of-another-model-width": (
        {"lcf/mu": np.zeros((3, 8), np.float32)},
        ("lcf/mu is float32 [3, 8]", "[3, 16]"),
    ),
    "of-another-model-depth": (
        {"lcf/precision": np.eye(4)},
        ("lcf/precision is float64 [4, 4]", "[3, 3]"),
    ),
    "empty-arrays": ({"lcf/mu": np.zeros((0, 0), np.float32)}, ("lcf/mu is float32 [0, 0]",)),
    "clean-scores-unsorted": (
        {"lcf/clean_scores": _ARRAYS["lcf/clean_scores"][::-1].copy()},
        ("lcf/clean_scores is not sorted",),
    ),
    "threshold-of-another-calibration": (
        {"siren/threshold": np.array(0.5)},
        ("siren: threshold is 0.5", "1000.0 in manifest.json"),
    ),
    "extra-array": ({"lcf/surprise": np.zeros(3)}, ("lcf/surprise is unknown",)),
    "extra-detector": ({"oracle/mu": np.zeros(3)}, ("'oracle'", "manifest does not list")),
    "all-of-a-detector-missing": (
        {name: None for name in _ARRAYS if name.startswith("siren/")},
        ("siren/layers is missing", "siren/neurons is missing"),
    ),
    "no-arrays-at-all": (dict.fromkeys(_ARRAYS), ("lcf/mu is missing", "siren/alpha is missing")),
    "state-beyond-the-last": (
        {"siren/layers": np.array([1, 2, 4], np.int32)},
        ("siren/layers is [1, 2, 4]", "0..3"),
    ),
    "state-below-zero": (
        {"siren/layers": np.array([-1, 2, 3], np.int32)},
        ("siren/layers is [-1, 2, 3]",),
    ),
    "no-states": ({"siren/layers": np.zeros(0, np.int32)}, ("siren/layers is []",)),
    "offsets-too-few": (
        {"siren/neuron_offsets": np.array([0, 16, 32], np.int32)},
        ("siren/neuron_offsets", "3 and 3 entries"),
    ),
    "offsets-descending": (
        {"siren/neuron_offsets": np.array([0, 32, 16, 48], np.int32)},
        ("[0, 32, 16, 48]", "ascending"),
    ),
    "offsets-not-from-zero": (
        {"siren/neuron_offsets": np.array([1, 16, 32, 48], np.int32)},
        ("[1, 16, 32, 48]", "from 0"),
    ),
    "offsets-beyond-the-neurons": (
        {"siren/neuron_offsets": np.array([0, 16, 32, 2**31 - 1], np.int32)},
        ("2147483647", "number of neurons, 48"),
    ),
    "neuron-beyond-the-width": (
        {"siren/neurons": _changed("siren/neurons", _7=16)},
        ("siren/neurons has indices outside 0..15",),
    ),
    "neuron-below-zero": (
        {"siren/neurons": _changed("siren/neurons", _7=-1)},
        ("siren/neurons has indices outside 0..15",),
    ),
    "alpha-too-short": (
        {"siren/alpha": np.ones(2, np.float32)},
        ("alpha have 4 and 2 entries",),
    ),
    "chain-broken-at-the-start": (
        {"siren/weight_0": np.zeros((8, 47), np.float32)},
        ("siren/weight_0 is [8, 47]", "[8, 48]"),
    ),
    "chain-broken-in-the-middle": (
        {"siren/weight_1": np.zeros((2, 9), np.float32)},
        ("siren/weight_1 is [2, 9]", "[2, 8]"),
    ),
    "bias-of-another-length": (
        {"siren/bias_0": np.zeros(7, np.float32)},
        ("siren/weight_0 is [8, 48]", "[7, 48]"),
    ),
    "three-answers": (
        {
            "siren/weight_1": np.zeros((3, 8), np.float32),
            "siren/bias_1": np.zeros(3, np.float32),
        },
        ("3 outputs", "expected 2"),
    ),
    "gap-in-the-chain": (
        {
            "siren/weight_1": None,
            "siren/bias_1": None,
            "siren/weight_7": np.zeros((2, 8), np.float32),
        },
        ("siren/weight_7 is unknown", "siren/weight_1 is missing"),
    ),
    "bias-without-a-weight": (
        {"siren/bias_2": np.zeros(2, np.float32)},
        ("siren/bias_2 is unknown",),
    ),
}


@pytest.mark.parametrize("case", _CASES)
def test_unfit_parameters_are_named(bundle: Path, case: str) -> None:
    """Parameters that contradict each other or the model are refused by name."""
    changed, words = _CASES[case]
    refused(put_arrays(bundle, changed), *words)


def test_all_unfit_parameters_are_listed_at_once(bundle: Path) -> None:
    """A fault in each detector, and both are listed."""
    changed = {"lcf/mu": _ZEROS[:1], "siren/bias_1": np.zeros((1, 1), np.float32)}
    assert len(refused(put_arrays(bundle, changed), "lcf/mu", "siren/bias_1")) == 2


def test_long_lists_of_indices_are_shortened(bundle: Path) -> None:
    """Twenty thousand wrong indices do not fill the screen."""
    count = 20_000
    changed: dict[str, Array | None] = {
        "siren/layers": np.full(count, 9, np.int32),
        "siren/neuron_offsets": np.full(count + 1, 3, np.int32),
        "siren/alpha": np.ones(count, np.float32),
    }
    refused(put_arrays(bundle, changed), "siren/layers is", "siren/neuron_offsets is")


def test_the_sound_arrays_are_the_ones_that_were_written(bundle: Path) -> None:
    """The cases above start from arrays that load."""
    arrays = arrays_of(bundle)
    assert arrays.keys() == _ARRAYS.keys()
    assert all(np.array_equal(arrays[name], _ARRAYS[name]) for name in arrays)
