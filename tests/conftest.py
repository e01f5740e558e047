"""Fixtures shared by every suite."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Time limits on single examples fail on a busy machine and say nothing about behaviour.
settings.register_profile("layerguard", deadline=None)
settings.load_profile("layerguard")


@pytest.fixture(scope="session", autouse=True)
def _text_key(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests hash texts with a key of their own, and leave the user's alone."""
    os.environ["LAYERGUARD_TEXT_KEY"] = str(tmp_path_factory.mktemp("key") / "text-key")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the checkout with data, golden vectors and small trained models."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("no ../shared beside this checkout: tests on real data and models do not run")
    return folder
