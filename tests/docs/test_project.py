"""What surrounds the sources: workflows, forms, hooks, changelog, targets."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from layerguard.runtime import cli
from tests.docs.blocks import ROOT
from tests.release import main, notes

GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))


def read(path: Path) -> dict[Any, Any]:
    """A YAML file; ``on`` is a key of text there, though YAML 1.1 calls it true."""
    value = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(value, dict)
    return value


def steps(path: Path) -> list[dict[str, Any]]:
    """Every step of a workflow's jobs."""
    return [step for job in read(path)["jobs"].values() for step in job.get("steps", ())]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_call_targets_of_the_makefile(path: Path) -> None:
    """Every ``make`` there is one here, and every job pins what it may do."""
    lines = "\n".join(step.get("run", "") for step in steps(path))
    called = re.findall(r"\bmake (\S+)", lines)
    assert called
    assert set(called) <= TARGETS
    assert "permissions" in read(path)


def test_there_is_a_workflow_for_each_stage() -> None:
    """Lint, tests, wheels and release; the last one checks tag and changelog first."""
    assert {path.stem for path in WORKFLOWS} == {"lint", "tests", "wheels", "release"}
    assert any("make release-check" in s.get("run", "") for s in steps(WORKFLOWS[1]))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_fit_their_schema(path: Path) -> None:
    """The published one of GitHub, as ``make lint`` checks it."""
    pytest.importorskip("check_jsonschema", reason="the schema comes with layerguard[lint]")
    command = ["-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(path)]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_issue_forms_are_forms(path: Path) -> None:
    """A name, a description and a body whose fields have ids of their own; commands exist."""
    form = read(path)
    if path.stem == "config":
        assert form == {"blank_issues_enabled": True}
        return
    assert form["name"]
    assert form["description"]
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields) > 0
    assert all(field["attributes"]["label"] for field in fields)
    named = re.findall(r"`layerguard ([a-z-]+)", path.read_text(encoding="utf-8"))
    assert {name for name in named if not name.startswith("-")} <= cli.COMMANDS.keys()


def test_hooks_call_tools_that_lint_calls() -> None:
    """No hook runs anything but the environment's own tools and make."""
    hooks = [h for repo in read(ROOT / ".pre-commit-config.yaml")["repos"] for h in repo["hooks"]]
    assert hooks
    for hook in hooks:
        program, *_ = hook["entry"].split()
        assert hook["language"] == "system"
        assert program == "make" or f"$(BIN)/{Path(program).name} " in MAKEFILE


def test_every_path_of_the_tests_exists() -> None:
    """A moved test would leave ``make quick`` or another target without it."""
    paths = re.findall(r"(?<![\w/])tests/[\w/.-]+(?![\w/.*\[-])", MAKEFILE)
    assert "tests/runtime" in paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_target_is_listed() -> None:
    """``make`` alone names all targets that say what they do."""
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = set(re.findall(r"^  make ([a-z-]+)", done.stdout, re.MULTILINE))
    documented = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE))
    assert {"docs", "docs-run", "quick", "coverage"} <= listed == documented
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert documented == set(phony.split())


def test_the_version_has_a_section_in_the_changelog() -> None:
    """With a date, and known kinds of changes."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert notes(changelog, version)
    assert notes(changelog, "99.0.0") is None
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.*)$", changelog, re.MULTILINE)) <= kinds
    assert changelog.index("## [Unreleased]") < changelog.index(f"## [{version}]")


def test_a_tag_of_another_version_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is built."""
    assert main("v99.0.0") == 1
    assert "expected v" in capsys.readouterr().out
