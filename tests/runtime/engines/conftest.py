"""What proves that states are read where they lie."""

from typing import Any

import pytest

from layerguard.runtime.errors import InputError
from layerguard.runtime.kernels import call


@pytest.fixture
def in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels that refuse what they would have to convert or copy before they read it."""

    def refuse(_: Any) -> Any:
        raise InputError("these states are not read in place")

    monkeypatch.setattr(call, "plain", refuse)
