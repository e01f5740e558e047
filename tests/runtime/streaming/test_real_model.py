"""With a trained model and an exported decode graph, a stream equals the check."""

from pathlib import Path

import pytest

from tests.runtime.streaming.written import compare, dialogues, trained_guard


@pytest.mark.shared
def test_a_stream_on_a_trained_model(shared: Path, tmp_path: Path) -> None:
    """Five texts in four alphabets and emoji, split at random bytes, all detectors."""
    guard = trained_guard(shared, tmp_path)
    pushes = [compare(guard, *texts, seed) for seed, texts in enumerate(dialogues(shared, 5))]
    assert min(pushes) > 5
