"""Guards, each asked in a process of its own on one thread."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import layerguard.runtime
from tests.peers.environment import python_with

GUARDS = Path(__file__).resolve().parent / "guards"
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class NoGuardError(Exception):
    """A guard could not be asked; the message says why."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A guard that comes trained.

    Attributes:
        requirement: what pip installs.
        script: the file of ``guards`` that asks it.
        packages: the distributions that it needs.
    """

    requirement: str
    script: str
    packages: Sequence[str]


PEERS: Mapping[str, Peer] = {
    "NanoGuard": Peer(
        "metatronnanoguard==0.1.0", "ask_nanoguard", ("metatronnanoguard", "tiktoken", "torch")
    ),
    "armorer-guard": Peer("armorer-guard==0.4.1", "ask_armorer_guard", ("armorer-guard",)),
    "llm-siren": Peer("llm-siren==0.2.0", "ask_llm_siren", ("llm-siren", "transformers", "torch")),
}
_RUNTIME = ("numpy", "onnxruntime", "tokenizers", "cffi", "jinja2")
_WORDS = ("scikit-learn", "scipy", "numpy")


def ask_peer(peer: Peer, texts: Sequence[str]) -> dict[str, Any]:
    """The answer of a guard that comes trained.

    Raises:
        NoGuardError: it does not install, or does not load.
    """
    try:
        python = python_with(peer.requirement)
    except subprocess.CalledProcessError as error:
        raise NoGuardError(f"pip cannot install {peer.requirement}") from error
    return _ask(python, peer.script, {"texts": texts, "packages": peer.packages})


def ask_words(
    texts: Sequence[str], training: Sequence[str], labels: Sequence[int], target: float
) -> dict[str, Any]:
    """The answer of the TF-IDF baseline, fitted to the training texts."""
    job = {"texts": texts, "training": training, "labels": labels, "target": target}
    return _ask(Path(sys.executable), "ask_words", {**job, "packages": _WORDS})


def ask_layerguard(texts: Sequence[str], bundle: Path) -> dict[str, Any]:
    """The answer of a calibrated bundle; ``disk_mb`` has the bundle and the runtime too."""
    job = {"texts": texts, "bundle": str(bundle), "packages": _RUNTIME}
    answer = _ask(Path(sys.executable), "ask_layerguard", job)
    folders = [bundle, Path(layerguard.runtime.__path__[0])]
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    return {**answer, "disk_mb": answer["disk_mb"] + sum(f.stat().st_size for f in files) / 1e6}


def _ask(python: Path, script: str, job: Mapping[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        [str(python), str(GUARDS / f"{script}.py")],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **dict.fromkeys(_THREADS, "1")},
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise NoGuardError(lines[-1])
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
