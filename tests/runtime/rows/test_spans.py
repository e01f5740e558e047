"""The key ``spans`` of a row: places of injected text."""

import json
from pathlib import Path
from typing import Any

import pytest

from layerguard.runtime.errors import InputError
from layerguard.runtime.rows.jsonl import read_rows


def _read(folder: Path, row: dict[str, Any]) -> Any:
    path = folder / "rows.jsonl"
    path.write_text(json.dumps(row), encoding="utf-8")
    return read_rows([path]).good[0].spans


@pytest.mark.parametrize(
    ("spans", "expected"), [(None, None), ([], ()), ([[0, 3], [5, 9]], ((0, 3), (5, 9)))]
)
def test_places_are_read(tmp_path: Path, spans: Any, expected: Any) -> None:
    """Of a text and of a prompt; no key and an empty list are different."""
    assert _read(tmp_path, {"text": "some text", "spans": spans}) == expected
    row = {"prompt": "some text", "response": "an answer", "spans": spans}
    assert _read(tmp_path, row) == expected


@pytest.mark.parametrize(
    "spans", ["0-3", [3], [[3]], [[1, 2, 3]], [[0, "3"]], [[0.0, 3.0]], [[3, 3]], [[-1, 2]],
              [[0, 10]], [[True, 2]], {"0": 3}]
)  # fmt: skip
def test_other_places_are_refused(tmp_path: Path, spans: Any) -> None:
    """With what was found and expected."""
    with pytest.raises(InputError, match=r"spans: found .*; expected"):
        _read(tmp_path, {"text": "some text", "spans": spans})
