"""The README says what is so."""

import re
import subprocess
from pathlib import Path

from layerguard.runtime import cli
from layerguard.runtime.bundle import files

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def test_help_is_the_real_one() -> None:
    """The command line's overview stands there as the program prints it."""
    assert cli._overview() in README


def test_every_command_named_exists() -> None:
    """No command is promised that the program does not have."""
    named = set(re.findall(r"layerguard ([a-z][a-z-]*)\b", README))
    assert {"export", "calibrate", "score"} <= named
    assert named <= {name.partition(" ")[0] for name in cli.COMMANDS}


def test_every_file_of_a_bundle_is_described() -> None:
    """The bundle's files are listed under their real names."""
    for name in (files.MANIFEST, files.GRAPH, files.WEIGHTS, files.TOKENIZER, files.DETECTORS):
        assert name in README


def test_every_benchmark_has_left_its_figures() -> None:
    """The measured tables come from results that lie in the repository."""
    bench = Path(__file__).resolve().parent / "bench"
    scripts = {path.stem.removeprefix("bench_") for path in bench.glob("bench_*.py")}
    assert "TABLE" not in README
    assert scripts <= {path.stem for path in (bench / "results").glob("*.json")}


def test_the_c_example_compiles(tmp_path: Path) -> None:
    """As C11, without a warning, against the header of this tree."""
    (example,) = re.findall(r"```c\n(.*?)```", README, re.DOTALL)
    source = tmp_path / "example.c"
    source.write_text(example)
    include = f"-I{Path(__file__).resolve().parents[1] / 'csrc'}"
    flags = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"]
    command = ["cc", *flags, include, "-c", source, "-o", tmp_path / "example.o"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
