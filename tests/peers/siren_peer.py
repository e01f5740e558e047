"""Heads, backbones and questions asked of both runtimes; and the golden file of the answers.

``siren_peer.json`` holds what llm-siren answered, so that the ordinary tests need no llm-siren.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

from layerguard.runtime import Guard
from layerguard.runtime.types import Verdict
from tests.peers.environment import ROOT
from tests.peers.siren_questions import CONTENTS, TRAJECTORIES

REQUIREMENT = "llm-siren==0.2.0"
GOLDEN = ROOT / "tests" / "golden" / "siren_peer.json"
Answers = dict[str, Any]
"""By head: ``alone`` and ``batch``, the scores, and ``harmful``. ``rendered``: trajectories."""


def detector_of(head: str) -> str:
    """The detector that a head becomes."""
    return "agent_siren" if head.startswith("agent") else "siren"


def questions_for(head: str) -> list[dict[str, Any]]:
    """What a head is asked."""
    return TRAJECTORIES if head.startswith("agent") else CONTENTS


def peer_answers(python: Path, heads: dict[str, Path]) -> Answers:
    """What llm-siren answers; of an Agent-SIREN head also at full depth, as ``<name>_whole``."""
    job = {
        "heads": {name: str(folder) for name, folder in heads.items()},
        "contents": CONTENTS,
        "trajectories": TRAJECTORIES,
    }
    script = ROOT / "tests" / "peers" / "llm_siren_answers.py"
    done = subprocess.run(
        [python, script], input=json.dumps(job), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{REQUIREMENT} failed:\n{done.stderr[-4000:]}")
    answers: Answers = json.loads(done.stdout)
    return answers


def our_answers(bundle: Path, head: str) -> dict[str, list[Any]]:
    """What a bundle answers into which the head was imported."""
    guard, name, questions = Guard.load(bundle, threads=1), detector_of(head), questions_for(head)
    alone = [guard.check(**question) for question in questions]
    return {
        "alone": [_score(verdict, name) for verdict in alone],
        "batch": [_score(verdict, name) for verdict in guard.check_batch(questions)],
        "harmful": [verdict.readings[name].flagged for verdict in alone],
    }


def largest_difference(ours: dict[str, list[Any]], theirs: dict[str, list[Any]]) -> float:
    """Between scores alone and as a batch; 1 where the two disagree about what is harmful."""
    if ours["harmful"] != theirs["harmful"]:
        return 1.0
    return max(
        abs(one - other)
        for way in ("alone", "batch")
        for one, other in zip(ours[way], theirs[way], strict=True)
    )


def _score(verdict: Verdict, name: str) -> float:
    return verdict.readings[name].score
