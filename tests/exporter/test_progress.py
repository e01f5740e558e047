"""The line that shows how far an export is."""

import io
import itertools
import re
import sys
from pathlib import Path

import pytest

from layerguard.exporter import Options, export
from layerguard.exporter.progress import Progress, progress, steps
from tests.exporter.models import save_model

_LINE = re.compile(r"([a-z][^\d\r]*?) +(\d+) %")


class Terminal(io.StringIO):
    """A stream that says it is a terminal, and keeps what was drawn."""

    def isatty(self) -> bool:
        """Yes."""
        return True

    def lines(self) -> list[tuple[str, int]]:
        """Each line drawn: the step that it names, and the percentage."""
        return [(name, int(share)) for name, share in _LINE.findall(self.getvalue())]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal, and a clock that moves by a second whenever it is read."""
    monkeypatch.setattr("tqdm.std.time", itertools.count().__next__)
    return Terminal()


def _walk(at: Progress, plan: dict[str, float]) -> None:
    for name in plan:
        at.step(name)
        for part in range(1, 11):
            at.tick(part / 10)


def test_the_line_names_each_step_and_only_moves_forwards(terminal: Terminal) -> None:
    """Every step in its order, each share as its weight says, and 100 % at the end."""
    plan = steps(["score", "decode"])
    with progress(plan, terminal) as at:
        _walk(at, plan)
    lines = terminal.lines()
    assert list(dict.fromkeys(name for name, _ in lines)) == list(plan)
    shares = [share for _, share in lines]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 100)
    begun = dict(reversed(lines))
    before, whole = 0.0, sum(plan.values())
    for name, weight in plan.items():
        assert abs(begun[name] - 100 * before / whole) <= 1, name
        before += weight


def test_the_line_moves_during_a_step(terminal: Terminal) -> None:
    """Each tick is drawn, though the share be the same, so the clock never stands still."""
    with progress({"first": 1, "second": 3}, terminal) as at:
        at.step("second")
        drawn = len(terminal.lines())
        for part in (0.0, 0.001, 0.5, 0.5, 1.0, 7.0):
            at.tick(part)
        assert [share for _, share in terminal.lines()[drawn:]] == [25, 25, 62, 62, 100, 100]


def test_steps_may_be_left_out_repeated_or_added(terminal: Terminal) -> None:
    """A plan that turns out otherwise never moves the line back, and ends at 100 %."""
    with progress({"a": 1, "b": 1, "c": 2}, terminal) as at:
        at.step("b")
        at.plan({"a": 1, "b": 1, "c": 1, "d": 5})
        at.tick(1)
        at.step("extra")
        at.step("d")
        at.tick(2)
    lines = terminal.lines()
    assert list(dict.fromkeys(name for name, _ in lines)) == ["b", "extra", "d"]
    shares = [share for _, share in lines]
    assert shares == sorted(shares)
    assert shares[0] == 25
    assert shares[-1] == 100


def test_a_pipe_gets_nothing() -> None:
    """Where the stream is no terminal, not a byte is written."""
    pipe, plan = io.StringIO(), steps(["score"])
    with progress(plan, pipe) as at:
        _walk(at, plan)
    assert pipe.getvalue() == ""


def test_an_export_shows_every_step(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real export names the steps of its plan in order, and moves while it traces and writes."""
    model = save_model(tmp_path / "model", num_hidden_layers=2)
    monkeypatch.setattr(sys, "stderr", terminal)
    export(str(model), tmp_path / "bundle", Options(decode="no"))
    lines = terminal.lines()
    assert list(dict.fromkeys(name for name, _ in lines)) == list(steps(["score"]))
    shares = [share for _, share in lines]
    assert shares == sorted(shares)
    assert shares[-1] == 100
    for step in ("tracing the score graph", "writing the score graph"):
        assert sum(name == step for name, _ in lines) > 5, step
