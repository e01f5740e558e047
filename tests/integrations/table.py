"""Runs the adapters against the real frameworks, on all-MiniLM-L6-v2, and prints a table.

    python -m tests.integrations.table [FRAMEWORK ...]

Frameworks are installed into environments of their own, under ``.cache``, in the versions that are
named here; what they require may contradict what LayerGuard is tested with. A test belongs to a
column by the beginning of its name. Exit code 1: a test failed, or did not run.
"""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench.minilm import calibrated
from tests.integrations.bundles import VARIABLE
from tests.peers.environment import ROOT, python_with

COLUMNS = {"blocks": "test_blocks", "passes": "test_passes", "fails closed": "test_fails_closed"}
"""Titles, and the beginning of the tests' names."""


@dataclass(frozen=True, slots=True)
class Framework:
    """A framework, and where its tests are.

    Attributes:
        package: its distribution, with the version that is tested.
        tests: the file of its tests, without ``test_`` and ``.py``.
        others: further packages that the tests need.
    """

    package: str
    tests: str
    others: tuple[str, ...] = ()


FRAMEWORKS = (
    Framework("langchain==1.5.2", "langchain"),
    Framework("openai-agents==0.24.0", "openai_agents"),
    Framework("pydantic-ai-slim==2.68.0", "pydantic_ai"),
    Framework("openai-guardrails==0.3.6", "openai_guardrails"),
    Framework("litellm[proxy]==1.108.7", "litellm"),
    Framework("fastapi==0.165.0", "fastapi", ("uvicorn", "openai==3.57.0")),
)


def main(wanted: list[str]) -> int:
    """Print a line for each framework; 1 if a test failed or did not run."""
    bundle = calibrated()
    line = "{:<18} {:>8}" + "  {:>12}" * len(COLUMNS)
    lines, sound = [line.format("framework", "version", *COLUMNS)], True
    for framework in FRAMEWORKS:
        name, version = framework.package.split("==")
        if wanted and name not in wanted:
            continue
        results = _results(framework, bundle)
        counts = [_count(results, prefix) for prefix in COLUMNS.values()]
        sound = sound and bool(results) and all(results.values())
        lines.append(line.format(name, version, *counts))
    print("\n".join(lines))
    return 0 if sound else 1


def _results(framework: Framework, bundle: Path) -> dict[str, bool]:
    """By test: whether it passed. A test that is skipped did not pass."""
    python = python_with(framework.package, *framework.others, constrained=False)
    with TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        subprocess.run(
            [python, "-m", "pytest", "-q", "-W", "default", "-p", "no:cacheprovider",
             f"--junitxml={report}", f"tests/integrations/test_{framework.tests}.py"],
            cwd=ROOT, env={**os.environ, VARIABLE: str(bundle)}, check=False,
        )  # fmt: skip
        cases = ET.parse(report).iter("testcase")
        return {case.get("name", ""): not _outcomes(case) for case in cases}


def _outcomes(case: ET.Element) -> list[str]:
    return [child.tag for child in case if child.tag in ("failure", "error", "skipped")]


def _count(results: dict[str, bool], prefix: str) -> str:
    found = [passed for name, passed in results.items() if name.startswith(prefix)]
    return f"{sum(found)} of {len(found)}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
