"""On a trained model, through the exporter's own decode graph, a stream is the check."""

from pathlib import Path

import pytest

from tests.streaming.written import compare, dialogues, trained_guard


@pytest.mark.shared
def test_a_stream_on_a_trained_model(shared: Path, tmp_path: Path) -> None:
    """Five texts in four alphabets and emoji, chunked at random bytes, all detectors."""
    guard = trained_guard(shared, tmp_path)
    pushes = [compare(guard, *texts, seed) for seed, texts in enumerate(dialogues(shared, 5))]
    assert min(pushes) > 5
