"""The bundle ``guard/`` in the working directory, as the documentation has it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from layerguard.runtime import Guard
from tests.integrations.bundles import Texts, bundle, texts


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that flags and passes what ``texts`` says."""
    return bundle(tmp_path_factory.mktemp("bundle") / "guard")


@pytest.fixture(scope="session")
def guard(folder: Path) -> Guard:
    """A guard on it, which no test changes."""
    return Guard.load(folder, threads=1)


@pytest.fixture
def said() -> Texts:
    """Texts that the guard flags, and texts that it passes."""
    return texts()


@pytest.fixture(autouse=True)
def in_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with ``guard/`` in it."""
    (tmp_path / "guard").symlink_to(folder)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def break_guard(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it, and guards raise an error for each text from then on."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the graph failed")

    return lambda: monkeypatch.setattr(Guard, "check_requests", fail)
