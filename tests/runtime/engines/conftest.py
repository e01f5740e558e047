"""A fixture that proves that states are read in place."""

from typing import Any

import pytest

from layerguard.runtime.errors import InputError
from layerguard.runtime.kernels import call


@pytest.fixture
def in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels that fail if they would have to convert or copy their input."""

    def refuse(_: Any) -> Any:
        raise InputError("these states are not read in place")

    monkeypatch.setattr(call, "plain", refuse)
