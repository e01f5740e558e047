"""The progress bar of an export."""

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
    """A stream that reports to be a terminal and keeps its content."""

    def isatty(self) -> bool:
        """True."""
        return True

    def lines(self) -> list[tuple[str, int]]:
        """The step and the percentage of each drawn line."""
        return [(name, int(share)) for name, share in _LINE.findall(self.getvalue())]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal, and a clock that advances by one second per reading."""
    monkeypatch.setattr("tqdm.std.time", itertools.count().__next__)
    return Terminal()


def _run_all(bar: Progress, plan: dict[str, float]) -> None:
    for name in plan:
        bar.step(name)
        for tenth in range(1, 11):
            bar.tick(tenth / 10)


def test_the_bar_names_each_step_and_never_moves_backwards(terminal: Terminal) -> None:
    """All steps appear in order, with shares by their weights and 100 % at the end."""
    plan = steps(["score", "decode"])
    with progress(plan, terminal) as bar:
        _run_all(bar, plan)
    lines = terminal.lines()
    assert list(dict.fromkeys(name for name, _ in lines)) == list(plan)
    shares = [share for _, share in lines]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 100)
    first_shares = dict(reversed(lines))
    before, whole = 0.0, sum(plan.values())
    for name, weight in plan.items():
        assert abs(first_shares[name] - 100 * before / whole) <= 1, name
        before += weight


def test_the_bar_is_redrawn_during_a_step(terminal: Terminal) -> None:
    """Each tick redraws the bar, so the clock advances even if the share is the same."""
    with progress({"first": 1, "second": 3}, terminal) as bar:
        bar.step("second")
        drawn = len(terminal.lines())
        for fraction in (0.0, 0.001, 0.5, 0.5, 1.0, 7.0):
            bar.tick(fraction)
        assert [share for _, share in terminal.lines()[drawn:]] == [25, 25, 62, 62, 100, 100]


def test_steps_may_be_left_out_repeated_or_added(terminal: Terminal) -> None:
    """A changed plan never moves the bar backwards, and ends at 100 %."""
    with progress({"a": 1, "b": 1, "c": 2}, terminal) as bar:
        bar.step("b")
        bar.plan({"a": 1, "b": 1, "c": 1, "d": 5})
        bar.tick(1)
        bar.step("extra")
        bar.step("d")
        bar.tick(2)
    lines = terminal.lines()
    assert list(dict.fromkeys(name for name, _ in lines)) == ["b", "extra", "d"]
    shares = [share for _, share in lines]
    assert shares == sorted(shares)
    assert shares[0] == 25
    assert shares[-1] == 100


def test_nothing_is_written_to_a_pipe() -> None:
    """Only a terminal shows the bar."""
    pipe, plan = io.StringIO(), steps(["score"])
    with progress(plan, pipe) as bar:
        _run_all(bar, plan)
    assert pipe.getvalue() == ""


def test_an_export_shows_every_step(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steps appear in the order of the plan, with progress while tracing and writing."""
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
