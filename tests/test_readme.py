"""The README says what is so; ``tests/docs`` looks at its commands, Python and links."""

import re
from pathlib import Path

from layerguard.runtime import cli
from layerguard.runtime.bundle import files

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MOST_WORDS = 1200


def test_help_is_the_real_one() -> None:
    """The command line's overview is there as the program prints it."""
    assert cli._overview() in README


def test_every_command_named_exists() -> None:
    """No command is promised that the program does not have."""
    named = set(re.findall(r"layerguard ([a-z][a-z-]*)\b", README))
    assert {"export", "calibrate", "score"} <= named
    assert named <= {name.partition(" ")[0] for name in cli.COMMANDS}


def test_it_is_short() -> None:
    """Tables and code count."""
    assert len(README.split()) <= MOST_WORDS


def test_the_guides_and_tutorials_are_linked() -> None:
    """Every page but those that the start pages of detectors and API list."""
    docs = ROOT / "docs"
    pages = {path for pattern in ("*.md", "tutorials/*.md") for path in docs.glob(pattern)}
    linked = {ROOT / target for target in re.findall(r"\]\((docs/[^)#]+)", README)}
    assert {path for path in pages - linked if path.stem != "index"} == set()


def test_every_file_of_a_bundle_is_described() -> None:
    """The bundle's files are listed under their real names."""
    page = (ROOT / "docs" / "bundle.md").read_text(encoding="utf-8")
    for name in (files.MANIFEST, files.GRAPH, files.WEIGHTS, files.TOKENIZER, files.DETECTORS):
        assert f"`{name}`" in page


def test_every_benchmark_has_left_its_figures() -> None:
    """The measured tables come from results that are in the repository."""
    bench = ROOT / "tests" / "bench"
    scripts = {path.stem.removeprefix("bench_") for path in bench.glob("bench_*.py")}
    assert "TABLE" not in README
    assert scripts <= {path.stem for path in (bench / "results").glob("*.json")}


def test_the_measured_table_is_that_of_the_documentation() -> None:
    """Line by line: the page of measurements repeats it."""
    page = (ROOT / "docs" / "measurements.md").read_text(encoding="utf-8").splitlines()
    table = README[README.index("| command | what it printed") :].partition("\n\n")[0]
    assert len(table.splitlines()) > 5
    assert [line for line in table.splitlines() if line not in page] == []
