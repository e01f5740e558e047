"""Rows of an int8 graph, whose activations share one scale per run."""

from pathlib import Path
from typing import Any

import pytest

from layerguard.runtime import Guard
from tests.tiny import make_bundle

TEXTS = ["the garden", "rain came over low hills", "a"]


@pytest.mark.parametrize(("dtype", "rows"), [("float32", [3]), ("int8", [1, 1, 1])])
def test_only_int8_rows_run_alone(tmp_path: Path, dtype: str, rows: list[int]) -> None:
    """A text's score must not depend on other texts of the batch."""
    manifest = make_bundle(tmp_path / "bundle") / "manifest.json"
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(text.replace('"dtype": "float32"', f'"dtype": "{dtype}"'), encoding="utf-8")
    guard = Guard.load(tmp_path / "bundle")
    run, seen = guard.backbone.session.run, []

    def counted(outputs: Any, feeds: Any) -> Any:
        seen.append(len(feeds["input_ids"]))
        return run(outputs, feeds)

    guard.backbone.session.run = counted  # type: ignore[method-assign]
    guard.check_batch(TEXTS)
    assert seen == rows
