"""A sound bundle to break, and a guard to ask."""

import shutil
from pathlib import Path

import pytest

from layerguard.runtime import Guard
from tests.tiny import make_bundle


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound bundle that no test changes."""
    return make_bundle(tmp_path_factory.mktemp("sound") / "bundle")


@pytest.fixture
def bundle(sound: Path, tmp_path: Path) -> Path:
    """A sound bundle of the test's own."""
    return Path(shutil.copytree(sound, tmp_path / "bundle"))


@pytest.fixture(scope="session")
def guard(sound: Path) -> Guard:
    """A guard on the sound bundle, with one thread so that many tests stay cheap."""
    return Guard.load(sound, threads=1)
