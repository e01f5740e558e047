"""Fixtures shared by every suite."""

from pathlib import Path

import pytest
from hypothesis import settings

# Time limits on single examples fail on a busy machine and say nothing about behaviour.
settings.register_profile("layerguard", deadline=None)
settings.load_profile("layerguard")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the checkout with data, golden vectors and small trained models."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("no ../shared beside this checkout: tests on real data and models do not run")
    return folder
