"""Uses that gave a wrong picture without an error."""

import asyncio
import io
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layerguard.runtime
from layerguard.calibration.drift.training import train
from layerguard.runtime import Guard, InputError
from layerguard.runtime.decision.flag_rate import FlagRateMonitor
from layerguard.runtime.errors import CalibrationError
from tests.attacks.attack import Attack
from tests.attacks.border import printed
from tests.calibration.drift.test_training import make
from tests.runtime.attacks.test_decisions import decided
from tests.tiny import make_bundle


def _guard(folder: Path) -> Guard:
    return Guard.load(make_bundle(folder / "bundle"), threads=1)


def _one_flag_of_six(folder: Path) -> None:
    """Six texts say nothing about a rate of 5 %."""
    del folder
    monitor = FlagRateMonitor({None: (0.037, 0.065)})
    for flagged in (False, True, False, False, False, False):
        monitor.update(flagged=flagged)
        assert not monitor.drifting


def _health_checks(folder: Path) -> None:
    guard = Guard.load(decided(make_bundle(folder / "bundle")), threads=1)
    for _ in range(20):
        guard.check("the garden", counted=False)
    guard.check_batch(["the garden"], counted=False)
    assert not guard.monitor.sources
    assert not guard.traffic.sources


def _monitor_of_chance(folder: Path) -> None:
    """Labels that have nothing to do with the drift give no monitor."""
    del folder
    arguments = make()
    runs = arguments["runs"]
    order = np.random.default_rng(0).permutation(len(runs))
    arguments["runs"] = [
        replace(row, misalignment=runs[other].misalignment)
        for row, other in zip(runs, order, strict=True)
    ]
    with pytest.raises(CalibrationError, match="better than chance"):
        train(**arguments)


def _monitor_of_copies(folder: Path) -> None:
    """Few checkpoints are no more evidence if they are given often."""
    del folder
    arguments = make()
    chosen = [0, 4, 5, 9] * 5
    arguments["checkpoints"] = [arguments["checkpoints"][i] for i in chosen]
    arguments["runs"] = [replace(arguments["runs"][i], run=str(n)) for n, i in enumerate(chosen)]
    with pytest.raises(CalibrationError, match="better than chance"):
        train(**arguments)


def _score_of(text: str, *arguments: str, folder: Path) -> tuple[int, str]:
    """``layerguard score`` with a text on standard input."""
    sys.stdin = io.TextIOWrapper(io.BytesIO(text.encode()))
    return printed("score", make_bundle(folder / "bundle"), *arguments)


def _empty_input(folder: Path) -> None:
    code, text = _score_of("", folder=folder)
    assert code == 2
    assert "standard input is empty" in text


def _dash(folder: Path) -> None:
    code, text = _score_of("the garden\n", "-", "--json", folder=folder)
    expected = printed("score", folder / "bundle", "the garden", "--json")[1]
    assert code == 0
    assert _without_time(text) == _without_time(expected)


def _without_time(text: str) -> str:
    return text.partition('"timings_ms"')[0]


def _wrong_call(call: Callable[[Guard], Any], words: str, folder: Path) -> None:
    with pytest.raises(InputError, match=words):
        call(_guard(folder))


def _no_path(folder: Path) -> None:
    del folder
    with pytest.raises(InputError, match="found NoneType"):
        Guard.load(None)  # type: ignore[arg-type]


def _key_twice(folder: Path) -> None:
    rows = folder / "rows.jsonl"
    rows.write_text('{"text": "harmful", "text": "harmless"}\n', encoding="ascii")
    code, text = printed("score", make_bundle(folder / "bundle"), "--input", rows)
    assert code == 2
    assert "the key 'text' appears twice" in text


_HELP = """
import contextlib, io, sys
for name in ("onnxruntime", "onnx", "torch", "transformers", "sklearn", "yaml", "model_signing"):
    sys.modules[name] = None
from layerguard.runtime.cli import COMMANDS, main
for command in COMMANDS:
    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):
        main([*command.split(), "--help"])
    assert shown.getvalue().startswith(f"usage: layerguard {command} "), command
"""


def _help_without_extras(folder: Path) -> None:
    subprocess.run([sys.executable, "-c", _HELP], check=True, cwd=folder)


def _exports(folder: Path) -> None:
    del folder
    for name in ("Stream", "Event", "OnFlag", "Sampler"):
        assert name in layerguard.runtime.__all__
        assert getattr(layerguard.runtime, name)


def _cancelled_check(folder: Path) -> None:
    """A task that is cancelled leaves a guard that works."""
    guard = _guard(folder)

    async def cancel() -> str:
        task = asyncio.create_task(guard.acheck("garden " * 50_000))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return (await guard.acheck("the garden")).status

    assert asyncio.run(cancel()) == "ok"


def _response_alone(guard: Guard) -> object:
    return guard.check(response="x")


def _unknown_key(guard: Guard) -> object:
    return guard.check_batch(["the", {"txt": "a"}])


ATTACKS = (
    Attack("one flagged text of six", _one_flag_of_six),
    Attack("health checks", _health_checks),
    Attack("a drift monitor of chance", _monitor_of_chance, 9),
    Attack("a drift monitor of copies", _monitor_of_copies, 9),
    Attack("empty standard input", _empty_input),
    Attack("a dash for standard input", _dash),
    Attack("a response alone", partial(_wrong_call, _response_alone, "found only response")),
    Attack("an unknown key", partial(_wrong_call, _unknown_key, "item 1: found the key 'txt'")),
    Attack("no path", _no_path),
    Attack("a key that appears twice", _key_twice),
    Attack("help without extras", _help_without_extras),
    Attack("names that are not exported", _exports),
    Attack("a cancelled check", _cancelled_check, 5),
)
