"""Votes of a manifest that cannot be true."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layerguard.runtime import Bundle
from tests.runtime.tamper import edit_manifest, refused


def voted(bundle: Path) -> Path:
    """The bundle with sound votes."""
    share = {"n": 40, "flagged": 2, "interval": [0.006, 0.169]}
    shares = {"by_source": {"mail": share}, "by_length": {}, "detection": share}
    vote = {
        "decides": True,
        "reason": "decides",
        "unseen": {"mail": share},
        "refitted": ["mail"],
        "least": {"mail": 0.009},
        "not_measured": {"chat": "fewer than 30 texts"},
        "shares": shares,
        "order": {"correlation": 0.1, "p_value": 0.3},
    }
    votes = {"target_fpr": 0.05, "max_shift": 3, "detectors": {"lcf": vote}, "guard": shares}
    return edit_manifest(bundle, lambda manifest: manifest.update(votes=votes))


def test_sound_votes_are_read(bundle: Path) -> None:
    """What the cases below break is sound before; a bundle without votes loads too."""
    assert Bundle.load(bundle).manifest.votes is None
    votes = Bundle.load(voted(bundle)).manifest.votes
    assert votes is not None
    assert votes.detectors["lcf"].unseen["mail"].flagged == 2


_CASES: dict[str, tuple[Callable[[Any], None], str]] = {
    "unknown-detector": (lambda v: v["detectors"].update(x=v["detectors"]["lcf"]), "has ['x']"),
    "no-target": (lambda v: v.update(target_fpr=0), "target_fpr 0.0 and max_shift 3.0"),
    "shift-below-one": (lambda v: v.update(max_shift=0.5), "max_shift 0.5"),
    "more-flagged-than-texts": (
        lambda v: v["detectors"]["lcf"]["unseen"]["mail"].update(flagged=41),
        "votes.detectors.lcf.unseen.mail: 41 of 40 flagged",
    ),
    "interval-upside-down": (
        lambda v: v["guard"]["detection"].update(interval=[0.2, 0.1]),
        "votes.guard.detection: 2 of 40 flagged, interval [0.2, 0.1]",
    ),
    "interval-of-one": (
        lambda v: v["guard"]["by_source"]["mail"].update(interval=[0.2]),
        "votes.guard.by_source.mail",
    ),
    "reason-no-text": (
        lambda v: v["detectors"]["lcf"].update(reason=3),
        "votes.detectors.lcf.reason: found 3; expected a text",
    ),
}


@pytest.mark.parametrize("case", _CASES)
def test_impossible_votes_are_named(bundle: Path, case: str) -> None:
    """Each with what was found."""
    edit, said = _CASES[case]
    edit_manifest(voted(bundle), lambda manifest: edit(manifest["votes"]))
    refused(bundle, said)
