"""NeMo Guardrails' rails against the guard. Runs in NeMo's environment."""

import asyncio
import json
import logging
import sys
from importlib.metadata import version

from nemoguardrails import LLMRails, RailsConfig
from nemoguardrails.testing.fake_model import FakeLLMModel

logging.disable(logging.CRITICAL)  # the rails report each failure that this script provokes
given = json.load(sys.stdin)
KIND = given["passes"][0]


def answer(config: str, prompt: str, written: str = KIND) -> str:
    """What a user gets: the model's answer, or a refusal."""
    rails = LLMRails(RailsConfig.from_content(yaml_content=config), llm=FakeLLMModel([written]))
    messages = [{"role": "user", "content": prompt}]
    return asyncio.run(rails.generate_async(messages=messages))["content"]


def passes(config: str, prompt: str, written: str = KIND) -> bool:
    """Whether the model's answer reaches the user; an error that is raised stops it."""
    try:
        return answer(config, prompt, written) == written
    except Exception:  # noqa: BLE001  whatever it is, the user gets no answer
        return False


def outcome(name: str, config: str, overloaded: str, *, reads_answers: bool) -> dict:
    """What one rail does."""
    faults = []
    if reads_answers and passes(config, given["passes"][0], given["block"][0]):
        faults.append("an answer that the guard flags passed")
    stopped = not passes(overloaded, given["passes"][0])
    if not stopped:
        faults.append("an overloaded guard let a text pass")
    refused = not passes(config, "x" * 5_000_000)
    if not refused:
        faults.append("a text that is too large passed")
    return {
        "client": f"NeMo Guardrails, {name}",
        "version": version("nemoguardrails"),
        "blocked": [not passes(config, text) for text in given["block"]],
        "passed": [passes(config, text) for text in given["passes"]],
        "overload": "blocks" if stopped else "passes",
        "error": "blocks" if refused else "passes",
        "faults": faults,
    }


print(json.dumps([outcome(**rail) for rail in given["rails"]]))
