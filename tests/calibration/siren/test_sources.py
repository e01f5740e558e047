"""Which rows SIREN's folds hold out together."""

import numpy as np

from layerguard.calibration.siren.calibrator import _sources
from layerguard.calibration.states.blockwise import ArrayStates
from layerguard.calibration.states.collect import RecordedStates
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.text.request import request


def _recorded(*rows: Row) -> RecordedStates[ArrayStates]:
    owner = np.repeat(np.arange(len(rows)), 2)
    return RecordedStates(rows, ArrayStates(np.zeros((2 * len(rows), 3, 4), np.float32)), owner, ())


def test_a_source_counts_and_a_domain_does_not() -> None:
    """Kinds of harm are domains: a fold without one of them would not learn it."""
    mail = Row("1", request("a"), label=1, source="mail", domain="jailbreak")
    none = Row("2", request("b"), label=0, domain="chat")
    assert _sources(_recorded(mail, none)) == ["mail", "mail", "", ""]
    assert _sources(_recorded(none, none)) is None
