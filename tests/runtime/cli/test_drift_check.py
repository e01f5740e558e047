"""``layerguard drift check``: its output, its exit codes, and what it does not load."""

import json
import subprocess
import sys

import pytest

from layerguard.runtime.cli import main
from tests.drift_monitors import make_base, make_checkpoint, make_monitor


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A base, two checkpoints of it, and monitors that predict little, much, and by the step."""
    folder = tmp_path_factory.mktemp("drift")
    base = make_base(folder / "base")
    make_checkpoint(base, folder / "far", 0.6)
    make_checkpoint(base, folder / "diverged", float("nan"))
    make_monitor(folder / "calm", base)
    make_monitor(folder / "worried", base, intercept=0.9)
    make_monitor(folder / "steps", base, step_aware=True)
    return {path.name: str(path) for path in folder.iterdir()}


def check(folders: dict[str, str], monitor: str, checkpoint: str, *more: str) -> int:
    """The exit code of one check."""
    return main(["drift", "check", folders[monitor], folders[checkpoint], "--threads", "1", *more])


def test_within_the_threshold_exits_zero(
    folders: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """One line for the decision, then one line per trait."""
    assert check(folders, "calm", "far", "--step", "40") == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("tiny at step 40: ok  predicted misalignment ")
    assert [line.split()[0] for line in out[4:]] == ["honesty", "sycophancy"]


def test_above_the_threshold_exits_one(
    folders: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1 lets a training pipeline stop."""
    assert check(folders, "worried", "base") == check(folders, "calm", "diverged") == 1
    out = capsys.readouterr().out
    assert "tiny: ALARM  predicted misalignment" in out
    assert "tiny: INVALID  " in out


def test_json_is_one_object_a_line(
    folders: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Everything a program needs, and nothing else on stdout; NaN is null."""
    assert check(folders, "calm", "diverged", "--json", "--step", "7") == 1
    out, err = capsys.readouterr()
    reading = json.loads(out)
    assert (reading["alarm"], reading["status"], reading["step"]) == (True, "invalid", 7)
    assert reading["predicted"] is None
    assert {trait["name"] for trait in reading["traits"]} == {"honesty", "sycophancy"}
    assert err == ""


def test_what_is_wrong_exits_two(
    folders: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Exchanged folders, a missing step, or a missing folder exit with 2."""
    assert main(["drift", "check", folders["base"], folders["calm"]]) == 2
    assert check(folders, "steps", "base") == 2
    assert main(["drift", "check", "nowhere", folders["base"]]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("layerguard drift check: ") == 3


def test_a_step_aware_monitor_takes_the_step(folders: dict[str, str]) -> None:
    """The same drift raises the alarm early in a run and not late."""
    assert check(folders, "steps", "far", "--step", "1") == 1
    assert check(folders, "steps", "far", "--step", "100000") == 0


def test_a_check_loads_no_training_library(folders: dict[str, str]) -> None:
    """Neither scikit-learn nor a YAML reader is imported."""
    code = (
        "import sys; from layerguard.runtime.cli import main;"
        f"code = main(['drift', 'check', {folders['calm']!r}, {folders['far']!r}]);"
        "bad = {'sklearn', 'scipy', 'torch', 'yaml', 'onnx', 'transformers'} & sys.modules.keys();"
        "sys.exit(f'{code} {bad}' if code or bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
