"""Decisions of a bundle that cannot be true, in the manifest or in its arrays."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layerguard.runtime import Guard
from layerguard.runtime.types import Array
from tests.runtime.tamper import edit_manifest, put_arrays, refused

N = 4


def decided(bundle: Path) -> Path:
    """The bundle with a sound decision of four clean texts."""
    put_arrays(
        bundle,
        {
            "decision/scores": np.arange(2.0 * N).reshape(N, 2),
            "decision/domains": np.array([0, 0, -1, -1], np.int32),
            "decision/texts": np.arange(N),
            "decision/seen": np.arange(2 * N),
        },
    )
    card = {
        "policy": "any",
        "detectors": ["lcf", "siren"],
        "shadow": [],
        "target_fpr": 0.4,
        "fpr_interval": [0.1, 0.7],
        "n": N,
        "calibration_sha256": "0" * 64,
        "domains": {
            "chat": {"n": 2, "fpr_interval": [0, 1], "thresholds": {"lcf": 1e3, "siren": 1e3}}
        },
    }
    return edit_manifest(bundle, lambda manifest: manifest.update(decision=card))


def test_a_sound_decision_is_served(bundle: Path) -> None:
    """What the cases below break is sound before."""
    verdict = Guard.load(decided(bundle), threads=1).check("the garden", domain="chat")
    assert (verdict.domain, verdict.p_value is None) == ("chat", False)


_CARDS: dict[str, tuple[Callable[[Any], None], str]] = {
    "unknown-detector": (lambda d: d["detectors"].append("x"), "decision.detectors is"),
    "detector-lacks": (lambda d: d["detectors"].pop(), "decision.detectors is"),
    "shadow-unknown": (lambda d: d["shadow"].append("x"), "decision.shadow is ['x']"),
    "none-decides": (lambda d: d["shadow"].extend(["lcf", "siren"]), "at least one must decide"),
    "policy-unknown": (lambda d: d.update(policy="most"), "decision.policy is 'most'"),
    "policy-of-two": (lambda d: d.update(policy="lcf"), "decision.policy is 'lcf'"),
    "no-target": (lambda d: d.update(target_fpr=0), "target_fpr 0.0"),
    "interval-upside-down": (lambda d: d.update(fpr_interval=[0.7, 0.1]), "[0.7, 0.1]"),
    "interval-of-one": (
        lambda d: d["domains"]["chat"].update(fpr_interval=[0.1]),
        "decision.domains.chat: target_fpr 0.4 and fpr_interval [0.1]",
    ),
    "domain-lacks-a-threshold": (
        lambda d: d["domains"]["chat"]["thresholds"].pop("lcf"),
        "decision.domains.chat.thresholds are of ['siren']",
    ),
    "text-for-a-threshold": (
        lambda d: d["domains"]["chat"]["thresholds"].update(lcf="high"),
        "expected a finite number",
    ),
}


@pytest.mark.parametrize("case", _CARDS)
def test_impossible_cards_are_named(bundle: Path, case: str) -> None:
    """Each with what was found."""
    edit, said = _CARDS[case]
    edit_manifest(decided(bundle), lambda manifest: edit(manifest["decision"]))
    refused(bundle, said)


_ARRAYS: dict[str, tuple[str, Array | None, str]] = {
    "scores-missing": ("scores", None, "decision/scores is missing"),
    "scores-of-another-n": ("scores", np.zeros((3, 2)), "decision/scores is float64 [3, 2]"),
    "scores-nan": ("scores", np.full((N, 2), np.nan), "8 values that are not finite"),
    "domains-beyond": ("domains", np.full(N, 1, np.int32), "decision/domains holds 1 to 1"),
    "domains-below": ("domains", np.full(N, -2, np.int32), "decision/domains holds -2 to -2"),
    "texts-narrow": ("texts", np.arange(N, dtype=np.int32), "decision/texts is int32"),
    "unknown": ("more", np.zeros(1), "decision/more is unknown"),
}


@pytest.mark.parametrize("case", _ARRAYS)
def test_impossible_arrays_are_named(bundle: Path, case: str) -> None:
    """Each with what was expected."""
    name, array, said = _ARRAYS[case]
    put_arrays(decided(bundle), {f"decision/{name}": array})
    refused(bundle, said)


def test_arrays_without_a_card_are_named(bundle: Path) -> None:
    """The manifest and the arrays tell of one decision or of none."""
    edit_manifest(decided(bundle), lambda manifest: manifest.pop("decision"))
    refused(bundle, "decision/scores: the manifest has no decision")
