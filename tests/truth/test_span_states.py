"""States of the injection table are kept on disk, and never given for other texts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.truth import span_states
from tests.truth.span_rows import Text


def test_kept_states_are_used_for_the_same_texts_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Other texts under the same name are read anew, and so is a file without a key."""
    runs: list[list[str]] = []

    def run(_: Path, texts: list[Text], layers: tuple[int, ...]) -> Any:
        runs.append([text.text for text in texts])
        for text in texts:
            tokens = len(text.text)
            yield np.full((len(layers), tokens, 3), tokens), np.zeros((tokens, 2), int)

    monkeypatch.setattr(span_states, "CACHE", tmp_path)
    monkeypatch.setattr(span_states, "_run", run)

    def read(*texts: str) -> list[int]:
        rows = [Text(text, "source", 0) for text in texts]
        found = span_states.read(lambda: tmp_path, "name", rows, (1, 2))
        return [int(row.states[0, 0, 0]) for row in found]

    assert read("a", "bb") == read("a", "bb") == [1, 2]
    assert runs == [["a", "bb"]]
    assert read("ccc", "bb") == [3, 2]
    assert read("a", "bb") == [1, 2]
    assert len(runs) == 3
    (file,) = (tmp_path / "spans").iterdir()
    with np.load(file) as kept:
        np.savez(file, **{name: kept[name] for name in ("states", "offsets", "lengths")})
    assert read("a", "bb") == [1, 2]
    assert len(runs) == 4
