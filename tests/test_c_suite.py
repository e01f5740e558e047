"""The C suite: built under the address and undefined-behaviour sanitizers, and run.

Eight threads with one guard run under the thread sanitizer too, and longer by ``make threads``.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.c.corpus.make import archives

ROOT = Path(__file__).resolve().parents[1]


def tool(name: str) -> str:
    """A build tool: the one installed beside this Python, else the system's."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    assert found, f"no {name}: install it with pip install {name}"
    return found


def run(*command: str) -> str:
    """The output of a command, which must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


CORPUS = ROOT / "tests" / "c" / "corpus"


def test_the_c_suite_passes_under_the_sanitizers(tmp_path: Path) -> None:
    """Every C test passes; warnings are errors and the first invalid access stops the program."""
    options = ("-DCMAKE_BUILD_TYPE=Release", "-DLAYERGUARD_TESTS=ON", "-DLAYERGUARD_SANITIZE=ON")
    run(tool("cmake"), "-S", str(ROOT), "-B", str(tmp_path), *options)
    run(tool("cmake"), "--build", str(tmp_path), "--parallel", "2")
    printed = run(tool("ctest"), "--test-dir", str(tmp_path), "--output-on-failure")
    assert "100% tests passed" in printed


def test_eight_threads_share_a_guard_under_the_thread_sanitizer(tmp_path: Path) -> None:
    """No race, and every call has the bits of one thread alone."""
    options = ("-DLAYERGUARD_TESTS=ON", "-DLAYERGUARD_SANITIZE=thread")
    run(tool("cmake"), "-S", str(ROOT), "-B", str(tmp_path), *options)
    targets = ("--target", "test_threads", "test_level")
    run(tool("cmake"), "--build", str(tmp_path), "--parallel", "2", *targets)
    run(str(tmp_path / "tests" / "c" / "test_level"))  # the first calls of all choose together
    program = tmp_path / "tests" / "c" / "test_threads"
    for archive in ("ok-decided.npz", "ok-everything.npz"):
        assert "8000 calls" in run(str(program), str(CORPUS / archive), "8000")


def test_the_corpus_is_what_its_script_writes() -> None:
    """By name: the bytes of what is deflated differ between releases of zlib."""
    assert {path.stem for path in CORPUS.glob("*.npz")} == archives().keys()
