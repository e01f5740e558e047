"""What llm-siren answers; run by a Python that has it, with a job as JSON on standard input.

The job: ``{"heads": {name: folder}, "contents": [...], "trajectories": [...]}``. The answer, on
standard output: by head, the scores alone, the scores as a batch, and whether each is harmful;
and ``rendered``, the texts that the trajectories become.
"""

import json
import sys
from typing import Any

import torch
from siren_guard import AgentSirenGuard, SirenGuard
from siren_guard._render import render
from siren_guard._trajectory import from_openai


def main() -> None:
    """Answer the job."""
    job = json.load(sys.stdin)
    torch.set_num_threads(1)
    answers: dict[str, Any] = {}
    for name, folder in job["heads"].items():
        if not name.startswith("agent"):
            answers[name] = content(folder, job["contents"])
            continue
        answers[name] = trajectory(folder, job["trajectories"], early_exit=True)
        answers[f"{name}_whole"] = trajectory(folder, job["trajectories"], early_exit=False)
        answers["rendered"] = rendered(folder, job["trajectories"])
    json.dump(answers, sys.stdout)


def content(folder: str, questions: list[dict[str, str]]) -> dict[str, Any]:
    """Of a SIREN head; a prompt alone is asked as a stream is."""
    guard = SirenGuard.from_pretrained(folder, device="cpu", dtype=torch.float32)
    alone = [
        guard.score(**question)
        if "response" in question
        else guard.score_streaming(**_one(question))
        for question in questions
    ]
    texts = ["\n".join(filter(None, question.values())) for question in questions]
    return _answer(alone, guard.score_batch(texts))


def trajectory(folder: str, questions: list[dict[str, Any]], *, early_exit: bool) -> dict[str, Any]:
    """Of an Agent-SIREN head."""
    guard = AgentSirenGuard.from_pretrained(
        folder, device="cpu", dtype=torch.float32, early_exit=early_exit
    )
    alone = [guard.score_streaming(**question) for question in questions]
    return _answer(alone, guard.score_batch(questions))


def rendered(folder: str, questions: list[dict[str, Any]]) -> list[str]:
    """The texts that trajectories become."""
    guard = AgentSirenGuard.from_pretrained(folder, device="cpu", dtype=torch.float32)
    return [
        render(guard._tokenizer, from_openai(**question), rich_tools=True) for question in questions
    ]


def _one(question: dict[str, str]) -> dict[str, str]:
    return {"response_so_far": question["prompt"]}


def _answer(alone: list[Any], batch: list[Any]) -> dict[str, Any]:
    return {
        "alone": [result.score for result in alone],
        "batch": [result.score for result in batch],
        "harmful": [result.is_harmful for result in alone],
    }


if __name__ == "__main__":
    main()
