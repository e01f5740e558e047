"""Machines that lack what was asked for: the answer is an error, never a quiet substitute."""

import builtins
import importlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from layerguard.runtime import Guard, InputError, LayerGuardError, MachineError
from layerguard.runtime.cli import COMMANDS, main
from layerguard.runtime.model import session as session_module


class _Pretender:
    """An onnxruntime that offers CUDA, and whose sessions run on something else."""

    __version__ = "9.9"

    def __init__(self, offered: Sequence[str], engaged: Sequence[str]) -> None:
        self._offered, self._engaged = list(offered), list(engaged)

    def get_available_providers(self) -> list[str]:
        return self._offered

    ExecutionOrder = SimpleNamespace(PRIORITY_BASED=1)

    class SessionOptions:
        def add_session_config_entry(self, *_: str) -> None:
            pass

    def InferenceSession(self, *_: Any, **__: Any) -> Any:  # noqa: N802  onnxruntime's name
        engaged = self._engaged

        class _Session:
            def get_providers(self) -> list[str]:
                return engaged

        return _Session()


_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def test_cuda_that_is_not_offered_is_an_error(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for CUDA, an onnxruntime without it is refused with what it offers and what to do."""
    monkeypatch.setattr(session_module, "load_onnxruntime", lambda: _Pretender([_CPU], [_CPU]))
    with pytest.raises(MachineError, match=r"layerguard\[cuda\]") as caught:
        Guard.load(sound, device="cuda")
    assert _CPU in str(caught.value)
    assert f"needs {_CUDA}" in str(caught.value)


def test_cuda_that_does_not_engage_is_an_error(
    sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offered and not engaged, as with a missing library, is no silent CPU either."""
    pretender = _Pretender([_CUDA, _CPU], [_CPU])
    monkeypatch.setattr(session_module, "load_onnxruntime", lambda: pretender)
    with pytest.raises(MachineError, match=f"did not engage: the session runs on {_CPU}"):
        Guard.load(sound, device="cuda")


def test_an_unknown_device_is_named(sound: Path) -> None:
    """Only cpu and cuda are devices."""
    with pytest.raises(InputError, match="device 'tpu'; expected cpu or cuda"):
        Guard.load(sound, device="tpu")  # type: ignore[arg-type]


@pytest.mark.parametrize("threads", [-1, 1_025, 10**12])
def test_impossible_thread_counts_are_refused(sound: Path, threads: int) -> None:
    """A number of threads that would take the machine down is refused."""
    with pytest.raises(InputError, match=f"threads {threads}; expected 1 to 1024"):
        Guard.load(sound, threads=threads)


def _forget(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Let imports of some packages fail as if they were not installed."""
    real = builtins.__import__

    def fake(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] in packages:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    for name in [n for n in sys.modules if n.partition(".")[0] in packages]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", fake)


def test_a_missing_onnxruntime_names_the_extra(
    sound: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without onnxruntime the guard says which extra brings it, and the command line exits 3."""
    _forget(monkeypatch, "onnxruntime")
    with pytest.raises(MachineError, match=r"pip install 'layerguard\[cpu\]'.*layerguard\[cuda\]"):
        Guard.load(sound)
    assert main(["score", str(sound), "the garden"]) == 3
    assert "layerguard[cpu]" in capsys.readouterr().err
    assert main(["doctor"]) == 3
    assert "WRONG  onnxruntime" in capsys.readouterr().out


def test_a_broken_bundle_is_reported_without_onnxruntime(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Verifying a bundle needs no onnxruntime."""
    _forget(monkeypatch, "onnxruntime")
    assert main(["inspect", str(bundle)]) == 0
    (bundle / "score.onnx").unlink()
    assert main(["inspect", str(bundle)]) == 2
    assert "score.onnx is missing" in capsys.readouterr().err


@pytest.mark.parametrize("command", [c for c, entry in COMMANDS.items() if entry.extra != "cpu"])
def test_a_command_without_its_extra_names_it(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command whose packages are missing exits 3 and says what to install."""

    def missing(_: str) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(importlib, "import_module", missing)
    assert main([command]) == 3
    err = capsys.readouterr().err
    assert f"pip install 'layerguard[{COMMANDS[command].extra}]'" in err
    assert "torch" in err


_SCORE_STATES = """
import sys
import numpy as np
from layerguard.runtime import Guard, MachineError
try:
    Guard.load(sys.argv[1], threads=1).score_states(np.zeros((4, 2, 16), np.float32))
except MachineError as error:
    print(error)
    sys.exit(3)
"""


@pytest.mark.parametrize("level", ["x86-64-v9", "fast", "AVX2", " "])
def test_an_unknown_kernel_level_is_an_error(sound: Path, level: str) -> None:
    """``LAYERGUARD_LEVEL`` is obeyed or refused, never ignored."""
    done = subprocess.run(
        [sys.executable, "-c", _SCORE_STATES, str(sound)],
        env=os.environ | {"LAYERGUARD_LEVEL": level},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert "level" in done.stdout


def test_exit_codes_tell_the_caller_from_the_machine() -> None:
    """A wrong call or wrong data exits 2, a wrong machine 3."""
    assert LayerGuardError.exit_code == InputError.exit_code == 2
    assert MachineError.exit_code == 3
