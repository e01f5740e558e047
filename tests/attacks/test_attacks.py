"""The attacks of the catalogue that take less than ten seconds hold."""

import os
from pathlib import Path
from typing import NoReturn

import pytest

from tests.attacks.attack import Attack, attempt
from tests.attacks.catalogue import FAMILIES

ALL = [attack for attacks in FAMILIES.values() for attack in attacks]
QUICK = [attack for attack in ALL if attack.seconds < 10]


@pytest.mark.parametrize("attack", QUICK, ids=lambda attack: attack.name)
def test_the_guard_holds(attack: Attack, tmp_path: Path) -> None:
    """Within its limits of time and memory."""
    assert attempt(attack, tmp_path).fault == ""


def test_names_are_unique() -> None:
    """Each row of the table is one attack."""
    assert len({attack.name for attack in ALL}) == len(ALL)


def _fail(_: Path) -> NoReturn:
    raise ValueError("the guard gave way")


def _hang(_: Path) -> None:
    os.read(os.pipe()[0], 1)


def _spin(_: Path) -> NoReturn:
    while True:
        pass


def _hoard(_: Path) -> None:
    bytearray(64 << 20)


def _hoard_without_end(_: Path) -> None:
    bytearray(8 << 30)


def _crash(_: Path) -> NoReturn:
    os.abort()


@pytest.mark.parametrize(
    ("attack", "fault"),
    [
        (Attack("fails", _fail), "ValueError: the guard gave way"),
        (Attack("hangs", _hang, deadline_s=1), "it was not done after"),
        (Attack("spins", _spin, 0.1), "its process ended with code"),
        (Attack("is slow", _hoard, 0.0), "it took too long"),
        (Attack("hoards", _hoard, mebibytes=32), "it took too much memory"),
        (Attack("hoards without end", _hoard_without_end), "MemoryError"),
        (Attack("crashes", _crash), "its process ended with code -6"),
    ],
    ids=lambda value: value.name if isinstance(value, Attack) else "",
)
def test_what_does_not_hold_is_seen(attack: Attack, fault: str, tmp_path: Path) -> None:
    """Failures, hangs, memory and crashes are each a fault."""
    assert fault in attempt(attack, tmp_path).fault
