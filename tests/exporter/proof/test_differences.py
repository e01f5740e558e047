"""Measured differences and their tolerance."""

import numpy as np
import pytest

from layerguard.exporter.proof.differences import Differences, Proof
from layerguard.runtime.errors import ExportError
from layerguard.runtime.types import Array


def proof_of(values: Array, exact: Array, rounded: Array) -> Proof:
    """The proof of one output and one batch."""
    differences = Differences(["state_00"])
    differences.add("state_00", values, exact, rounded)
    return differences.proof(1)


def test_differences_are_relative_to_the_largest_element() -> None:
    """0.02 in a vector with 4,000 is 5e-6, in a vector with 2 it is 1e-2; the worst one counts."""
    exact = np.array([[4_000.0, 1.0], [2.0, 1.0]])
    large = proof_of(exact + np.array([[0, 0.02], [0, 0]]), exact, exact)
    small = proof_of(exact + np.array([[0, 0], [0, 0.02]]), exact, exact)
    assert large.largest["state_00"] == pytest.approx(5e-6)
    assert small.largest["state_00"] == pytest.approx(1e-2)
    large.check("float32")
    with pytest.raises(ExportError, match=r"0\.01; expected at most 1e-05"):
        small.check("float32")


@pytest.mark.parametrize(
    ("rounding", "allowed"),
    [(0.0, 1e-5), (4e-7, 1e-5), (2e-6, 4e-5), (2e-4, 1e-3), (np.inf, 1e-5), (np.nan, 1e-5)],
)
def test_twenty_times_pytorchs_own_rounding_is_allowed(rounding: float, allowed: float) -> None:
    """The tolerance is 1e-5 to 1e-3; it is 1e-5 if the rounding is not finite."""
    at_most = {"state_00": allowed * 0.999}
    own = {"state_00": rounding}
    assert Proof(at_most, own, own, 1).allowed("float32")["state_00"] == pytest.approx(allowed)
    Proof(at_most, own, own, 1).check("float32")
    with pytest.raises(ExportError, match=f"expected at most {allowed:g}"):
        Proof({"state_00": allowed * 1.001}, own, own, 1).check("float32")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_fail(value: float) -> None:
    """In the graph alone, or in the graph and PyTorch's float32."""
    exact = np.array([[1.0, 2.0]])
    broken = np.array([[1.0, value]])
    for values, rounded in ((broken, exact), (broken, broken)):
        with pytest.raises(ExportError, match="differs from the model"):
            proof_of(values, exact, rounded).check("float32")


@pytest.mark.parametrize("value", [1e-3, float("nan"), float("inf")])
def test_an_output_beyond_the_tolerance_is_refused(value: float) -> None:
    """Also NaN and infinity, and whichever output it is."""
    fine = {"last_00": 1e-6, "last_01": 2e-6}
    Proof(fine, fine, fine, 1).check("float32")
    with pytest.raises(ExportError, match="last_01"):
        Proof({**fine, "last_01": value}, fine, fine, 1).check("float32")
    if not np.isfinite(value):
        with pytest.raises(ExportError, match="Try --dtype float32"):
            Proof(fine, fine, {**fine, "last_01": value}, 1).check("int8")
