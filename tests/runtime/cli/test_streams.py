"""Standard streams in any encoding, full or closed; paths that are not valid UTF-8."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from layerguard.runtime.rows.jsonl import read_rows

_FULL = Path("/dev/full")
_CALL = (sys.executable, "-m", "layerguard.runtime.cli")
_ASCII: dict[str, dict[str, str]] = {
    "ASCII": {"PYTHONIOENCODING": "ascii"},
    "Latin-1": {"PYTHONIOENCODING": "latin-1"},
    "C locale": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}

full = pytest.mark.skipif(not _FULL.exists(), reason="this system has no /dev/full")


def _run(
    arguments: Sequence[str | bytes | Path], environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*_CALL, *arguments],
        capture_output=True,
        check=False,
        env={**os.environ, **(environment or {})},
    )


@pytest.mark.parametrize("case", _ASCII)
def test_any_encoding_takes_what_is_printed(sound: Path, tmp_path: Path, case: str) -> None:
    """Unsupported characters are escaped; the exit code is that of the verdict."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"id": "жук…", "text": "the garden"}\n', encoding="utf-8")
    for arguments in (
        ["score", sound, "--input", rows],
        ["score", sound, "--json", "--input", rows],
    ):
        done = _run(arguments, _ASCII[case])
        assert (done.returncode, done.stderr) == (0, b"")
        assert rb"\u0436\u0443\u043a\u2026" in done.stdout
    missing = _run(["score", "жук", "a"], {"PYTHONIOENCODING": "ascii"})
    assert missing.returncode == 2
    assert b"is not served" in missing.stderr
    assert b"Traceback" not in missing.stderr


@full
@pytest.mark.parametrize(
    ("arguments", "unbuffered"),
    [
        (["score", "B", "the"], ""),
        (["score", "B", "--json", "the"], "1"),
        (["inspect", "B"], ""),
        (["--version"], "1"),
        (["--help"], ""),
    ],
    ids=" ".join,
)
def test_full_standard_output_is_a_sentence(
    sound: Path, arguments: list[str], unbuffered: str
) -> None:
    """Exit code 3, one sentence; exit code 1 would mean flagged."""
    call = [*_CALL, *(str(sound) if word == "B" else word for word in arguments)]
    with _FULL.open("wb") as out:
        done = subprocess.run(
            call,
            stdout=out,
            stderr=subprocess.PIPE,
            check=False,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
    assert done.returncode == 3
    (line,) = done.stderr.decode().splitlines()
    assert "output cannot be written (No space left on device); expected" in line


@full
def test_full_standard_error_leaves_the_exit_code(sound: Path, strict: Path) -> None:
    """A message that cannot be printed has no other effect."""
    for bundle, code in ((sound, 0), (strict, 1), (sound / "nothing", 2)):
        with _FULL.open("wb") as err:
            done = subprocess.run(
                [*_CALL, "score", bundle, "the"],
                stdout=subprocess.PIPE,
                stderr=err,
                check=False,
            )
        assert done.returncode == code


@pytest.mark.parametrize("arguments", ["score B the", "score --help", "inspect B"])
def test_a_pipe_that_closes_early_is_quiet(sound: Path, arguments: str) -> None:
    """There is no traceback at exit, even if the output fits the pipe's buffer."""
    typed = arguments.replace("B", str(sound))
    line = f"{sys.executable} -m layerguard.runtime.cli {typed} | (exec <&-; sleep 0)"
    done = subprocess.run(["sh", "-c", line], capture_output=True, check=False)
    assert (done.stdout, done.stderr) == (b"", b"")


_STRANGE = b"r\xff\xe4"
"""A name in Latin-1, as old file systems have them."""


def test_rows_of_a_path_that_is_not_utf_8(sound: Path, tmp_path: Path) -> None:
    """They are read; messages show the bytes as escapes, ids as U+FFFD."""
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + _STRANGE + b".jsonl"))
    path.write_bytes(b'{"text": "the garden"}\nno\n')
    done = _run(["score", sound, "--json", "--input", path])
    assert done.returncode == 2
    assert json.loads(done.stdout)["id"] == "r\ufffd\ufffd-1"
    assert rb"r\udcff\udce4.jsonl:2: not JSON" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_bundle_at_a_path_that_is_not_utf_8(sound: Path, tmp_path: Path) -> None:
    """It is served, and messages show the bytes as escapes."""
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + _STRANGE))
    shutil.copytree(sound, path)
    assert _run(["inspect", path]).returncode == 0
    assert _run(["score", path, "a"]).returncode == 0
    named = _run(["score", path / "missing", "a"])
    assert named.returncode == 2
    assert rb"r\udcff\udce4" in named.stderr
    text = _run(["score", sound, b"a \xff"])
    assert text.returncode == 2
    assert b"text: found '\\udcff', a lone surrogate, at character 2" in text.stderr


def test_a_byte_order_mark_is_skipped_once(tmp_path: Path) -> None:
    """It is skipped at the start of a file only."""
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes('\ufeff{"text": "\ufeffa"}\n{"text": "b"}\n\ufeff{"text": "c"}\n'.encode())
    found = read_rows([rows])
    assert [row.request.prompt for row in found.good] == ["\ufeffa", "b"]
    assert [row.id for row in found.good] == ["rows-1", "rows-2"]
    assert [fault.partition(": ")[2][:8] for fault in found.faults] == ["not JSON"]
    rows.write_bytes(b"\xef\xbb\xbf\n" + b'{"text": "b"}\n')
    assert [row.id for row in read_rows([rows]).good] == ["rows-2"]
