"""A bundle without detectors, and settings for hypothesis."""

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from layerguard.calibration.siren import training
from tests.tiny import make_bundle

settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle without detectors that no test changes."""
    return make_bundle(tmp_path_factory.mktemp("exported") / "bundle", {})


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    """A bundle without detectors that the test may change."""
    return Path(shutil.copytree(exported, tmp_path / "bundle"))


@pytest.fixture
def small_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIREN with one candidate instead of nine."""
    monkeypatch.setattr(training, "DECAYS", (0.01,))
    monkeypatch.setattr(training, "EPOCHS", (8,))
