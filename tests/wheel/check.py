"""Prove the built wheel in a clean environment: no compiler, no PyTorch, small, quick to import.

    python tests/wheel/check.py dist/layerguard-*.whl [BUNDLE]

Makes a virtual environment, installs ``WHEEL[cpu]`` alone, and prints what it finds; stops at the
first thing that is not as promised. Without BUNDLE a toy one is written for it.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
MAX_INSTALLED_MB = 200
MAX_IMPORT_S = 0.3
ABSENT = ("torch", "transformers", "sklearn", "scipy", "optimum", "onnx")
TIMED_IMPORT = (
    "import time; start = time.perf_counter(); import layerguard.runtime; "
    "print(time.perf_counter() - start)"
)


def main(wheel: Path, bundle: Path | None) -> None:
    """Install, score, measure."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        if bundle is None:
            bundle = _toy_bundle(home / "bundle")
        environment = home / "environment"
        venv.create(environment, with_pip=True)
        before = _megabytes(environment)
        python = environment / "bin" / "python"
        _run(python, "-m", "pip", "install", "--quiet", f"{wheel.resolve()}[cpu]", cwd=home)
        size = _megabytes(environment) - before
        _expect(f"installed size {size:.0f} MB", size <= MAX_INSTALLED_MB)

        seconds = [float(_run(python, "-c", TIMED_IMPORT, cwd=home)) for _ in range(5)]
        median = statistics.median(seconds)
        _expect(f"import layerguard.runtime {median:.3f} s", median <= MAX_IMPORT_S)

        probe = (
            "import importlib.util as u, sys; print([n for n in sys.argv[1:] if u.find_spec(n)])"
        )
        found = _run(python, "-c", probe, *ABSENT, cwd=home).strip()
        _expect(f"importable of {', '.join(ABSENT)}: {found}", found == "[]")

        command = [environment / "bin" / "layerguard", "score", bundle.resolve(), "a quiet text"]
        verdict = json.loads(_run(*command, "--json", cwd=home, allowed=(0, 1)))
        scores = {name: reading["score"] for name, reading in verdict["readings"].items()}
        _expect(f"layerguard score --json: {scores}", bool(scores))

        missing = subprocess.run(
            [environment / "bin" / "layerguard", "export", "model", "-o", "out"],
            capture_output=True, text=True, cwd=home, env=_bare(), check=False,
        )  # fmt: skip
        helpful = missing.returncode == 3 and "layerguard[export]" in missing.stderr
        _expect(f"layerguard export there: {missing.stderr.strip()}", helpful)


def _toy_bundle(folder: Path) -> Path:
    sys.path.insert(0, str(REPOSITORY))
    from tests.tiny import make_bundle  # noqa: PLC0415  needs the developers' environment

    return make_bundle(folder)


def _run(*command: object, cwd: Path, allowed: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True, text=True, cwd=cwd, env=_bare(), check=False,
    )  # fmt: skip
    if done.returncode not in allowed:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def _bare() -> dict[str, str]:
    """The environment without a compiler on the path."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "CC"))}
    return {**kept, "PATH": "/nonexistent"}


def _megabytes(folder: Path) -> float:
    blocks = sum(p.lstat().st_blocks for p in folder.rglob("*") if not p.is_symlink())
    return blocks * 512 / 2**20


def _expect(what: str, well: bool) -> None:
    print(f"{'ok   ' if well else 'WRONG'}  {what}", flush=True)
    if not well:
        sys.exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
