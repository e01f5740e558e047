"""A sound bundle to break, and a guard to ask."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from layerguard.runtime import Guard
from tests.tiny import make_bundle, make_params

# a busy machine is no fault of the code: examples may take as long as they take
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


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


@pytest.fixture(scope="session")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that flags every text."""
    params = make_params()
    params["siren"]["threshold"] = np.array(-1.0)
    return make_bundle(tmp_path_factory.mktemp("strict") / "bundle", params)
