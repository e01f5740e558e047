"""The checks on a GPU, run on the CPU with toys: they answer, and say plainly what did not run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from layerguard.runtime.errors import ExportError
from tests.gpu import check
from tests.gpu.bundles import make
from tests.gpu.no_fallback import _refused
from tests.gpu.parity import check_tolerance
from tests.gpu.stage import Setting

pytestmark = pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(),
    reason="this onnxruntime has CUDA: python -m tests.gpu.check runs the checks themselves",
)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the command writes for toys on the CPU; its exit code is 0."""
    out = tmp_path_factory.mktemp("gpu")
    arguments = ["--device", "cpu", "--tiny", "--out", str(out), "--budget-seconds", "3000"]
    assert check.main(arguments) == 0
    content: dict[str, Any] = json.loads((out / "gpu.json").read_text(encoding="utf-8"))
    return content


def test_what_makes_sense_on_the_cpu_is_answered(found: dict[str, Any]) -> None:
    """Parity, refusal, binding and times are true values; nothing fails."""
    stages = found["stages"]
    assert {name: r["error"] for name, r in stages.items() if "error" in r} == {}
    same = stages["parity:smollm2-float32"]["result"]
    assert same["largest_difference"] == 0
    assert same["flips"] == 0
    assert same["batches"] == 5
    assert same["providers"] == ["CPUExecutionProvider"]
    refusal = stages["no-fallback:no-package"]["result"]["refused"]
    assert "needs CUDAExecutionProvider" in refusal
    binding = stages["io-binding"]["result"]
    assert 0 < binding["bytes_pooled"] < binding["bytes_pooled_and_states"]
    times = stages["time:llama3-8b"]["result"]
    assert times["measured"]["2"]["check_16_ms"] > 0
    assert times["measured"]["4"]["stream_token_ms"] > 0
    assert set(times["extrapolated"]) == set(times["measured"]["2"])


def test_what_needs_cuda_is_said_not_to_have_run(found: dict[str, Any]) -> None:
    """No check passes that was not made."""
    for name in ("no-fallback:no-device", "no-fallback:no-library"):
        assert found["stages"][name] == {"status": "not run", "reason": "no CUDA provider"}


def test_cuda_that_is_not_there_is_no_success(tmp_path: Path) -> None:
    """Asked for CUDA on a machine without it, the command says so in its exit code."""
    assert check.main(["--device", "cuda", "--tiny", "--out", str(tmp_path)]) == 3
    stages = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["stages"]
    assert stages["parity:minilm-float32"]["reason"] == "no CUDA provider"
    assert stages["no-fallback:no-package"]["status"] == "passed"


def test_a_difference_beyond_the_tolerance_fails() -> None:
    """What the CPU and the device give is held to the exporter's own limit."""
    states = np.ones((1, 3, 4), np.float32)
    good = check_tolerance("float32", ["state"], [{"state": (states, states)}], {"state": 0.0})
    assert good["largest_difference"] == 0
    apart = {"state": (states * np.float32(1.01), states)}
    with pytest.raises(ExportError, match="state"):
        check_tolerance("float32", ["state"], [apart], {"state": 0.0})


def test_a_stage_that_fails_is_recorded_and_decides(tmp_path: Path) -> None:
    """A process that dies is a failure with what it said last, and the exit code says so."""
    setting = Setting("cpu", tmp_path, tiny=True)
    report = check._run_child("no such stage", setting, 60, float("inf"), watch=False)
    assert report["status"] == "failed"
    assert "no such stage" in report["error"]
    reports = {name: {"status": "passed"} for name in check.STAGES}
    assert check.exit_code("cuda", reports) == 0
    assert check.exit_code("cuda", {**reports, "parity:minilm-float16": report}) == 1
    assert check.exit_code("cuda", {**reports, "time:llama3-8b": report}) == 0
    assert check.exit_code("cuda", {**reports, "io-binding": report}) == 0


def test_a_stage_beyond_its_time_is_ended(tmp_path: Path) -> None:
    """A stage has a limit, and one that would start after the budget is used up does not run."""
    setting = Setting("cpu", tmp_path, tiny=True)
    monotonic = check.time.monotonic()
    late = check._run_child("io-binding", setting, 60, monotonic + 1, watch=False)
    assert late == {"status": "not run", "reason": "the time budget is used up"}


def test_a_guard_that_runs_on_the_cpu_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A silent fallback is a failure of the stage that looks for it."""
    make("minilm-float32", tmp_path, tiny=True)
    monkeypatch.setattr("tests.gpu.no_fallback._ASK", 'print(\'{"runs_on": ["CPU"]}\')')
    with pytest.raises(AssertionError, match="found a guard on"):
        _refused(Setting("cuda", tmp_path, tiny=True), {})
