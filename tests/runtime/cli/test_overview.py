"""The command line: commands, help and exit codes."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from layerguard.runtime.cli import COMMANDS, main


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_helps(command: str) -> None:
    """``--help`` says what the command does and what it takes, and exits 0."""
    call = [sys.executable, "-m", "layerguard.runtime.cli", command, "--help"]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: layerguard {command} ")
    assert len(done.stdout.splitlines()) > 5
    assert done.stderr == ""


_WITHOUT_EXTRAS = """
import contextlib, io, sys

ABSENT = sys.argv[1].split()

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Absent())
from layerguard.runtime.cli import COMMANDS, main

for command in COMMANDS:
    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):
        main([*command.split(), "--help"])
    print(shown.getvalue().partition(chr(10))[0])
sys.exit(main(["eval", "bundle", "rows.jsonl"]))
"""


def test_help_needs_no_extra() -> None:
    """Every command describes itself with the base install; running one says what to install."""
    absent = (
        "onnxruntime torch transformers optimum onnx onnxscript onnx_ir safetensors gguf sklearn "
        "scipy threadpoolctl yaml pyarrow model_signing cryptography"
    )
    call = [sys.executable, "-c", _WITHOUT_EXTRAS, absent]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert len(lines) == len(COMMANDS)
    for command, line in zip(COMMANDS, lines, strict=True):
        assert line.startswith(f"usage: layerguard {command} "), done.stderr
    assert done.returncode == 3
    assert "pip install 'layerguard[calibrate]'" in done.stderr


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_the_overview_lists_every_command(capsys: pytest.CaptureFixture[str], flag: str) -> None:
    """All commands with their line of help, and the exit codes."""
    assert main([flag]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out and entry.help in out for name, entry in COMMANDS.items())
    assert "exit codes: 0" in out


def test_no_command_is_a_wrong_call(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a command, the overview is printed and the exit code is 2."""
    assert main([]) == 2
    assert "usage: layerguard COMMAND" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "meant"), [("scor", "score"), ("inspekt", "inspect"), ("docter", "doctor")]
)
def test_a_mistyped_command_is_guessed(
    capsys: pytest.CaptureFixture[str], typed: str, meant: str
) -> None:
    """A near miss is answered with the command that was meant."""
    assert main([typed]) == 2
    assert f"no command {typed!r}; did you mean {meant!r}?" in capsys.readouterr().err


def test_an_unknown_command_is_not_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    """A name that resembles no command gets no suggestion."""
    assert main(["zzz"]) == 2
    assert "did you mean" not in capsys.readouterr().err


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    """``--version`` prints the version that is installed."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"layerguard {version('layerguard')}\n"


@pytest.mark.parametrize(
    "arguments",
    [["score"], ["score", "x", "y", "z"], ["inspect"], ["bench", "x", "--words", "many"]],
    ids=" ".join,
)
def test_wrong_arguments_exit_two(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """Invalid arguments exit with 2, and the usage is printed on stderr."""
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert f"usage: layerguard {arguments[0]}" in capsys.readouterr().err


def test_nothing_flagged_exits_zero(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A clean text: one line of decision, one a detector, exit 0."""
    assert main(["score", str(sound), "the garden"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("text: ok  every score is within its threshold")
    assert [line.split()[0] for line in out.splitlines()] == ["text:", "lcf", "siren"]


def test_something_flagged_exits_one(strict: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A flagged text: exit 1, and the reason."""
    assert main(["score", str(strict), "the garden"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("text: FLAGGED  siren: score")
    assert "most at layers" in out


def test_a_broken_bundle_exits_two(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A bundle with faults: exit 2, nothing on stdout, the faults on stderr."""
    (bundle / "score.onnx").write_bytes(b"")
    for arguments in (
        ["score", str(bundle), "x"],
        ["inspect", str(bundle)],
        ["bench", str(bundle)],
    ):
        assert main(arguments) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"layerguard {arguments[0]}: bundle {str(bundle)!r} is not served:")
