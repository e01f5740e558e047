"""What every client is given, and what it reports."""

import json
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[2] / "docs" / "gateways.md"
SCRIPTS = Path(__file__).resolve().parent / "clients"


@dataclass(frozen=True)
class Setting:
    """The servers and texts of a run.

    Attributes:
        guard: address of the server.
        overloaded: address of a server that never answers in time.
        ports: the ports of the two servers for Envoy's external processing.
        model: address of the model, up to and with ``/v1``.
        bundle: name of the bundle.
        block: texts that the guard flags.
        passes: texts that it does not flag.
        bad_answer: a prompt that passes, whose answer the guard flags.
        environments: folder of the clients' environments.
        logs: folder for the output of processes.
    """

    guard: str
    overloaded: str
    ports: tuple[int, int]
    model: str
    bundle: str
    block: list[str]
    passes: list[str]
    bad_answer: str
    environments: Path
    logs: Path

    def configured(self, text: str, *, overloaded: bool = False) -> str:
        """A configuration of the page, with the addresses of this run."""
        guard = self.overloaded if overloaded else self.guard
        return text.replace("http://127.0.0.1:8080", guard).replace(
            "http://127.0.0.1:9000/v1", self.model
        )


@dataclass
class Outcome:
    """What one client did.

    Attributes:
        client: its name.
        version: its version.
        blocked: for each text that the guard flags, whether the client stopped it.
        passed: for each other text, whether the client let it pass.
        stream: what happened to a flagged answer in a stream; empty if the client asks about none.
        overload: what it did while the guard answered nothing.
        error: what it said of a call that the guard refused.
        faults: what it should not have done.
    """

    client: str
    version: str = ""
    blocked: list[bool] = field(default_factory=list)
    passed: list[bool] = field(default_factory=list)
    stream: str = ""
    overload: str = ""
    error: str = ""
    faults: list[str] = field(default_factory=list)

    def expect(self, holds: bool, fault: str) -> None:
        """Note a fault unless something holds."""
        if not holds:
            self.faults.append(fault)

    @property
    def is_good(self) -> bool:
        """Whether it did all that it should."""
        return (
            bool(self.blocked and self.passed)
            and all(self.blocked + self.passed)
            and not (self.faults)
        )


def configurations(heading: str, language: str) -> list[str]:
    """The blocks of a language in a section of the page, in order."""
    page = PAGE.read_text(encoding="utf-8")
    _, _, section = page.partition(f"\n## {heading}\n")
    section = section.partition("\n## ")[0]
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    assert found, f"{PAGE.name} has no {language} under {heading!r}"
    return found


def in_environment(interpreter: Path, script: str, given: dict[str, Any]) -> list[Outcome]:
    """What a script of ``clients`` reports that runs in another environment.

    Args:
        interpreter: of that environment.
        script: its name.
        given: what it reads from its standard input, as JSON.

    Raises:
        RuntimeError: it failed.
    """
    done = subprocess.run(
        [str(interpreter), str(SCRIPTS / script)],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{script}: {done.stderr.strip()[-1500:]}")
    return outcomes(json.loads(done.stdout.splitlines()[-1]))


def outcomes(reported: Iterable[dict[str, Any]]) -> list[Outcome]:
    """The outcomes of plain JSON."""
    return [Outcome(**one) for one in reported]
