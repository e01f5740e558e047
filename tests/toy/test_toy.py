"""A new detector needs only its own files and a line in each registry."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.structure.detector_names import ROOT
from tests.test_c_suite import run, tool

_HERE = Path(__file__).parent
_STEPS = ["calibrate", "freeze", "load", "check", "stream", "C", "fuse"]


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python module of a C core that includes the toy detector."""
    build = tmp_path_factory.mktemp("build")
    sources = ";".join(str(_HERE / name) for name in ("registry.c", "toy.c"))
    options = ("-DLAYERGUARD_PYTHON=ON", f"-DLAYERGUARD_REGISTRY={sources}")
    python = f"-DPython_EXECUTABLE={sys.executable}"
    run(tool("cmake"), "-S", str(ROOT), "-B", str(build), *options, python)
    run(tool("cmake"), "--build", str(build), "--parallel", "2", "--target", "_kernels")
    (module,) = build.glob("_kernels*.so")
    return module


def test_a_new_detector_is_served_everywhere(kernels: Path, tmp_path: Path) -> None:
    """It is calibrated, frozen, loaded, checked, streamed, scored from C and fused."""
    command = [sys.executable, "-m", "tests.toy.launch", str(kernels), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split() == _STEPS


def test_it_takes_few_lines() -> None:
    """A few dozen lines of Python, and not many more of C."""
    counts = {
        name: len((_HERE / name).read_text().splitlines()) for name in ("toy.c", "detector.py")
    }
    assert counts["toy.c"] < 100
    assert counts["detector.py"] < 90
