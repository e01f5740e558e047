"""Guards in forked and spawned processes, and behind gunicorn --preload, in bounded time."""

import http.client
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from layerguard.runtime import BundleError, Guard, MachineError
from layerguard.runtime.model.session import Session
from tests import tiny, tiny_decoder

LIMIT = 90
"""Seconds for a whole script on a busy machine; one that hangs is killed then."""

LONG = "the garden was quiet before the rain came " * 30
"""Enough tokens that a product of the toy network is shared out to ONNX Runtime's threads."""

_HEAD = """
import os, signal, sys, time
from pathlib import Path
from layerguard.runtime import BundleError, Guard, InputError
from layerguard.runtime.model.session import Session

def in_child(act, limit=40):
    child = os.fork()
    if not child:
        act()
        sys.exit(7)  # an ordinary end: finalizers and exit handlers run
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert os.waitstatus_to_exitcode(status) == 7, status
            return
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    sys.exit("the child hangs")
"""


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy decoder that no test changes."""
    return tiny_decoder.make_bundle(tmp_path_factory.mktemp("decoder") / "bundle")


def run_script(source: str, *arguments: str, folder: Path, **environment: str) -> str:
    """A script's output; it and its children are killed after ``LIMIT`` seconds."""
    script = folder / "script.py"
    script.write_text(source, encoding="utf-8")
    command = [sys.executable, str(script), *arguments]
    with started(command, **environment) as process:
        out, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, err[-3000:]
    return out


@contextmanager
def started(command: list[str], **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A process in its own process group, which is killed at the end."""
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **environment},
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


_FORK = (
    _HEAD
    + """
path, long = sys.argv[1:]
guard = Guard.load(path, threads=2)
before = guard.check(prompt="the garden", response=long)
stream = guard.stream(prompt="the garden")

def act():
    assert guard.check(prompt="the garden", response=long).readings == before.readings
    with guard.stream(prompt="the garden") as fresh:
        assert fresh.push(" was quiet").readings
    assert [event.text for event in guard.generate("the garden", max_new_tokens=2, on_flag="log")]
    try:
        stream.push(" was quiet")
    except InputError as error:
        assert f"was opened in process {os.getppid()}" in str(error), error
    else:
        raise AssertionError("a stream of the parent was read on")
    stream.close()

def act_again():
    assert guard.check(prompt="the garden", response=long).readings == before.readings

in_child(act)
in_child(lambda: in_child(act_again))
"""
)


def test_a_forked_process_uses_the_guard_and_ends(decoder: Path, tmp_path: Path) -> None:
    """The child checks, streams and generates with the parent's guard, and so does its child.

    A stream of the parent is refused there.
    """
    run_script(_FORK, str(decoder), LONG, folder=tmp_path)


def test_a_forked_process_ends_without_using_the_guard(decoder: Path, tmp_path: Path) -> None:
    """An unused guard does not keep the child from exiting."""
    source = _HEAD + "guard = Guard.load(sys.argv[1], threads=2)\nin_child(lambda: None)\n"
    run_script(source, str(decoder), folder=tmp_path)


def test_a_forked_process_ends_where_onnxruntime_was_imported_first(
    decoder: Path, tmp_path: Path
) -> None:
    """With its telemetry on, onnxruntime has a thread from the import on, for which it waits.

    What the child wrote to C streams and its exit code come through.
    """
    source = (
        "import onnxruntime\n"
        + _HEAD
        + """
guard = Guard.load(sys.argv[1], threads=2)
import ctypes
in_child(lambda: ctypes.CDLL(None).puts(b"written by C"))
"""
    )
    out = run_script(source, str(decoder), folder=tmp_path, ORT_DISABLE_TELEMETRY="0")
    assert out == "written by C\n"


def test_onnxruntime_is_imported_without_telemetry(decoder: Path, tmp_path: Path) -> None:
    """The variable that keeps its uploader from starting is set before the import, if unset."""
    source = _HEAD + "Guard.load(sys.argv[1])\nprint(os.environ['ORT_DISABLE_TELEMETRY'])\n"
    environment = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    for given, expected in (({}, "1"), ({"ORT_DISABLE_TELEMETRY": "0"}, "0")):
        script = tmp_path / "script.py"
        script.write_text(source, encoding="utf-8")
        clean = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
        done = subprocess.run(
            [sys.executable, str(script), str(decoder)],
            env={**clean, **environment, **given},
            capture_output=True, text=True, timeout=LIMIT, check=True,
        )  # fmt: skip
        assert done.stdout == f"{expected}\n"


_SESSION = (
    _HEAD
    + """
import numpy as np
session = Session(Path(sys.argv[1]) / "score.onnx", threads=2)
feeds = {name: np.ones((8, 300), np.int64) for name in session.inputs}
before = session.run(["mean_03"], feeds)[0]

def act():
    assert len(os.listdir("/proc/self/task")) == 1
    np.testing.assert_array_equal(session.run(["mean_03"], feeds)[0], before)
    assert len(os.listdir("/proc/self/task")) == 2

in_child(act)
"""
)


def test_a_session_alone_is_opened_anew(decoder: Path, tmp_path: Path) -> None:
    """A session without a guard gives the same numbers in a child process."""
    run_script(_SESSION, str(decoder), folder=tmp_path)


_ALTERED = (
    _HEAD
    + """
path = Path(sys.argv[1])
guard = Guard.load(path, threads=1)
verdict = guard.check("the garden")

def act():
    try:
        guard.check("the garden")
    except BundleError as error:
        assert "the bundle changed after it was loaded" in str(error), error
    else:
        raise AssertionError("another graph was served")

graph = path / "score.onnx"
sound = graph.read_bytes()
graph.write_bytes(sound.replace(b"tiny_decoder", b"tiny_another"))
in_child(act)
assert guard.check("the garden").readings == verdict.readings
graph.write_bytes(sound)
in_child(lambda: guard.check("the garden"))
"""
)


def test_a_forked_process_refuses_a_graph_that_changed(tmp_path: Path) -> None:
    """The child opens the graph again, which must be unchanged; the parent continues."""
    bundle = tiny_decoder.make_bundle(tmp_path / "bundle")
    run_script(_ALTERED, str(bundle), folder=tmp_path)


_POOL = """
import multiprocessing, sys
from layerguard.runtime import Guard

def check(guard, text, answers):
    answers.put(guard.check(text).readings)

if __name__ == "__main__":
    method, path, text = sys.argv[1:]
    guard = Guard.load(path, threads=2)
    context = multiprocessing.get_context(method)
    answers = context.Queue()
    children = [context.Process(target=check, args=(guard, text, answers)) for _ in range(2)]
    for child in children:
        child.start()
    for _ in children:
        assert answers.get(timeout=60) == guard.check(text).readings
    for child in children:
        child.join(timeout=30)
        assert child.exitcode == 0, child.exitcode
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing(method: str, decoder: Path, tmp_path: Path) -> None:
    """Children of ``multiprocessing`` give the parent's verdicts, forked or by a pickled guard."""
    run_script(_POOL, method, str(decoder), LONG, folder=tmp_path)


def test_a_pickled_guard_is_the_same_guard(sound: Path, guard: Guard) -> None:
    """It serves the same bundle with the same threads; its flag-rate monitor restarts."""
    guard.check("the garden")
    again = pickle.loads(pickle.dumps(guard))
    assert again.bundle.id == guard.bundle.id
    assert again.bundle.path == sound
    assert again.backbone.session.threads == 1
    assert again.monitor.n == 0
    assert again.check("the garden").readings == guard.check("the garden").readings


def test_a_pickled_guard_refuses_another_bundle(bundle: Path) -> None:
    """If the bundle was replaced after pickling, loading fails."""
    pickled = pickle.dumps(Guard.load(bundle, threads=1))
    tiny.make_bundle(bundle, tiny.make_params(seed=1))
    with pytest.raises(BundleError, match="the guard was pickled with"):
        pickle.loads(pickled)


def test_cuda_is_refused_in_a_forked_process(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says that each process must load the guard itself."""
    session = Session(sound / "score.onnx", threads=1)
    kept = session._opened
    session.renew()  # as after a fork
    assert kept is not None
    monkeypatch.setattr(session, "device", "cuda")
    with pytest.raises(MachineError, match="was forked from one with a guard on cuda"):
        session.run(["mean_00"], {})


_APPLICATION = """
import json, os
from layerguard.runtime import Guard

guard = Guard.load(os.environ["GUARD"], threads=2)

def application(environ, respond):
    text = environ["wsgi.input"].read().decode()
    score = guard.check(text).readings["lcf"].score
    respond("200 OK", [("Content-Type", "application/json")])
    return [json.dumps([os.getpid(), score]).encode()]
"""


class _Unix(http.client.HTTPConnection):
    """HTTP over a Unix socket, so that no port is needed."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        """Connect to the path."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(str(self._path))


def _ask(path: Path, text: str) -> tuple[int, float]:
    connection = _Unix(path)
    connection.request("POST", "/", text)
    pid, score = json.loads(connection.getresponse().read())
    connection.close()
    return pid, score


def test_gunicorn_with_preload(sound: Path, guard: Guard, tmp_path: Path) -> None:
    """Workers forked from a process with a guard answer correctly, and exit on request."""
    pytest.importorskip("gunicorn", reason="gunicorn is not installed: pip install gunicorn")
    (tmp_path / "app.py").write_text(_APPLICATION, encoding="utf-8")
    where = tmp_path / "s"
    command = [
        sys.executable, "-m", "gunicorn", "app:application", "--preload", "--workers", "2",
        "--chdir", str(tmp_path), "--bind", f"unix:{where}", "--graceful-timeout", "300",
        "--timeout", "300",
    ]  # fmt: skip
    text = LONG[:400]
    with started(command, GUARD=str(sound)) as server:
        end = time.monotonic() + LIMIT
        while not where.exists() and time.monotonic() < end:
            time.sleep(0.1)
        answers = [_ask(where, text)]
        while len({pid for pid, _ in answers}) < 2 and time.monotonic() < end:
            answers.append(_ask(where, text))
        assert {score for _, score in answers} == {guard.check(text).readings["lcf"].score}
        assert len({pid for pid, _ in answers}) == 2
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=60) == 0, server.stderr.read() if server.stderr else ""
        for pid in {pid for pid, _ in answers}:
            assert not Path(f"/proc/{pid}").exists()
