"""Prove the built wheel in a clean environment: no compiler, no PyTorch, small, quick to import.

    python tests/wheel/check.py dist/layerguard-*.whl [BUNDLE]

Makes a virtual environment, installs ``WHEEL[cpu]`` alone, and prints what it finds; stops at the
first thing that is not as promised. Every command that serves runs there; then ``WHEEL[serve]``
comes, and a server answers; then a packed bundle is
installed without an index, scored by name, and its signature verified; then ``WHEEL[calibrate]``
comes, and every command that prepares a bundle without PyTorch runs. Without BUNDLE toy ones do.
"""

import json
import os
import shlex
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
MAX_INSTALLED_MB = 215
MAX_SERVER_MB = 230
MAX_IMPORT_S = 0.3
TRAINING = ("torch", "transformers", "optimum", "onnx")
ABSENT = (*TRAINING, "sklearn", "scipy", "safetensors")
TIMED_IMPORT = (
    "import time; start = time.process_time(); import layerguard.runtime; "
    "print(time.process_time() - start)"
)
TIMED_SERVER = TIMED_IMPORT.replace("layerguard.runtime", "layerguard.runtime.server.run")
STREAMED = (
    "import sys; from layerguard.runtime import Guard; "
    "stream = Guard.load(sys.argv[1]).stream(prompt='the garden'); "
    "print(stream.push('was quiet').tokens, stream.push(b' before').tokens)"
)

SERVING = (
    "score {bundle} 'a quiet text'",
    "score decoder 'the garden was quiet'",
    "generate decoder 'the garden' --max-new-tokens 4 --on-flag log",
    "drift check monitor checkpoint",
    "trace traceable 'the garden was quiet'",
)
"""Commands that serve; all of them print JSON when asked to."""

BY_NAME = ("list", "inspect acme-guard", "score acme-guard 'a quiet text'", "doctor acme-guard")
"""Commands that find an installed bundle."""

SIGNED = (
    "verify acme-guard --key ours.pub",
    "score acme-guard 'a quiet text' --verify ours.pub",
)
"""Commands that verify its signature."""

PREPARING = (
    "recalibrate encoder --shadow rows.jsonl --target-fpr 0.1",
    "import-siren head encoder --other-base",
    "audit base tuned --json",
    "calibrate encoder --clean rows.jsonl --target-fpr 0.1",
)
"""Commands that prepare a bundle and need the calibrate extra."""


def main(wheel: Path, bundle: Path | None) -> None:
    """Install, score, measure."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        toys = (sys.executable, "-m", "tests.wheel.toys", home)
        subprocess.run([str(part) for part in toys], check=True, cwd=REPOSITORY)
        environment = home / "environment"
        venv.create(environment, with_pip=True)
        empty = _megabytes(environment)
        python = environment / "bin" / "python"
        _run(python, "-m", "pip", "install", "--quiet", f"{wheel.resolve()}[cpu]", cwd=home)
        size = _megabytes(environment) - empty
        _expect(f"installed size {size:.0f} MB", size <= MAX_INSTALLED_MB)

        seconds = [float(_run(python, "-c", TIMED_IMPORT, cwd=home)) for _ in range(5)]
        median = statistics.median(seconds)  # of the processor, so that a busy machine may take it
        _expect(f"import layerguard.runtime {median:.3f} s", median <= MAX_IMPORT_S)

        _expect_absent(python, ABSENT, home)
        for words in SERVING:
            lines = _command(environment, words, home, bundle, "--json").splitlines()
            _expect(f"layerguard {words}: {lines[0][:60]}...", bool(list(map(json.loads, lines))))
        read = _run(python, "-c", STREAMED, "decoder", cwd=home).strip()
        _expect(f"guard.stream: {read} tokens read", len(read.split()) == 2)

        _embed(python, home, bundle)

        missing = subprocess.run(
            [environment / "bin" / "layerguard", "export", "model", "-o", "out"],
            capture_output=True, text=True, cwd=home, env=_bare(), check=False,
        )  # fmt: skip
        helpful = missing.returncode == 3 and "layerguard[export]" in missing.stderr
        _expect(f"layerguard export there: {missing.stderr.strip()}", helpful)

        _run(python, "-m", "pip", "install", "--quiet", f"{wheel.resolve()}[serve]", cwd=home)
        size = _megabytes(environment) - empty
        _expect(f"installed size with [serve] {size:.0f} MB", size <= MAX_SERVER_MB)
        seconds = [float(_run(python, "-c", TIMED_SERVER, cwd=home)) for _ in range(5)]
        _expect(f"import of the server {statistics.median(seconds):.3f} s", True)
        _expect_absent(python, ABSENT, home)
        _serve(environment, home, bundle)
        _add(environment, home, wheel, "ws", "otel")
        _serve(environment, home, bundle)

        packed = home / "acme_guard-1.2.0-py3-none-any.whl"
        _run(python, "-m", "pip", "install", "--quiet", "--no-index", packed, cwd=home)
        for words in BY_NAME:
            lines = _command(environment, words, home, bundle).splitlines()
            _expect(f"layerguard {words}: {lines[-1]}", True)

        _add(environment, home, wheel, "sign")
        _expect_absent(python, ABSENT, home)
        for words in SIGNED:
            lines = _command(environment, words, home, bundle).splitlines()
            _expect(f"layerguard {words}: {lines[0]}", True)
        other = [environment / "bin" / "layerguard", "score", "acme-guard", "a text"]
        refused = subprocess.run(
            [*other, "--verify", "theirs.pub"],
            capture_output=True, text=True, cwd=home, env=_bare(), check=False,
        )  # fmt: skip
        told = refused.stderr.strip().splitlines()[-1]
        _expect(f"another key:{told}", refused.returncode == 2 and "another key" in told)

        _run(python, "-m", "pip", "install", "--quiet", f"{wheel.resolve()}[calibrate]", cwd=home)
        _expect_absent(python, TRAINING, home)
        for words in PREPARING:
            lines = _command(environment, words, home, bundle).splitlines()
            _expect(f"layerguard {words}: {lines[0][:60]}...", True)


def _add(environment: Path, home: Path, wheel: Path, *extras: str) -> None:
    """Install some extras, one after the other, and say how large they are."""
    pip = (environment / "bin" / "python", "-m", "pip", "install", "--quiet")
    for extra in extras:
        before = _megabytes(environment)
        _run(*pip, f"{wheel.resolve()}[{extra}]", cwd=home)
        _expect(f"[{extra}] adds {_megabytes(environment) - before:.1f} MB", True)


def _embed(python: Path, home: Path, bundle: Path | None) -> None:
    """A C program links with what the wheel ships; the compiler is this machine's."""
    source = REPOSITORY / "tests" / "c" / "consumer" / "consumer.c"
    archive = (bundle.resolve() if bundle else home / "encoder") / "detectors.npz"
    for more in ((), ("--static",)):
        asked = ("-m", "layerguard.runtime", "--cflags", "--libs", *more)
        flags = shlex.split(_run(python, *asked, cwd=home))
        subprocess.run(["cc", "-std=c11", source, "-o", home / "embedded", *flags], check=True)
        lines = _run(home / "embedded", archive, cwd=home, allowed=(0, 1)).splitlines()
        _expect(f"embedded in C{' '.join(more)}: {lines}", len(lines) > 1)


def _serve(environment: Path, home: Path, bundle: Path | None) -> None:
    """A server starts, answers a check, and ends at SIGTERM."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    where = bundle.resolve() if bundle else "encoder"
    command = [environment / "bin" / "layerguard", "serve", where, "--port", str(port)]
    body = json.dumps({"text": "a quiet text"}).encode()
    with subprocess.Popen(command, cwd=home, env=_bare(), stderr=subprocess.DEVNULL) as server:
        try:
            answer = _asked(f"http://127.0.0.1:{port}/v1/check", body)
        finally:
            server.terminate()
    said = f"layerguard serve: {sorted(answer)[:4]}..., ended with {server.returncode}"
    _expect(said, "bundle_id" in answer and server.returncode == 0)


def _asked(url: str, body: bytes, seconds: float = 60) -> dict[str, Any]:
    """What a server answers once it is ready."""
    end = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, body) as response:
                answer: dict[str, Any] = json.load(response)
                return answer
        except OSError:  # it does not listen yet, or it is not ready
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def _command(environment: Path, words: str, home: Path, bundle: Path | None, *more: str) -> str:
    """What a command prints; it may have flagged something."""
    name = bundle.resolve() if bundle else "encoder"
    parts = shlex.split(words.format(bundle=name))
    program = environment / "bin" / "layerguard"
    return _run(program, *parts, *more, cwd=home, allowed=(0, 1))


def _expect_absent(python: Path, names: tuple[str, ...], home: Path) -> None:
    probe = "import importlib.util as u, sys; print([n for n in sys.argv[1:] if u.find_spec(n)])"
    found = _run(python, "-c", probe, *names, cwd=home).strip()
    _expect(f"importable of {', '.join(names)}: {found}", found == "[]")


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
