"""OpenAI Guardrails' moderation check against the guard. Runs in the agents' environment."""

import asyncio
import json
import sys
from importlib.metadata import version
from types import SimpleNamespace

import openai
from guardrails.checks.text.moderation import ModerationCfg, moderation

given = json.load(sys.stdin)


def triggered(text: str, address: str = given["guard"]) -> bool:
    """Whether the check stops a text."""
    client = openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
    context = SimpleNamespace(guardrail_llm=client)
    return asyncio.run(moderation(context, text, ModerationCfg())).tripwire_triggered


outcome = {
    "client": "OpenAI Guardrails, moderation",
    "version": version("openai-guardrails"),
    "blocked": [triggered(text) for text in given["block"]],
    "passed": [not triggered(text) for text in given["passes"]],
    "faults": [],
}
try:
    triggered("a text", given["overloaded"])
    outcome["faults"].append("an overloaded guard raised no error")
except openai.InternalServerError as error:
    outcome["overload"] = f"raises {error.status_code}"
try:
    triggered("")
    triggered(None)
    outcome["faults"].append("a call without a text raised no error")
except openai.BadRequestError as error:
    outcome["error"] = f"raises {error.status_code} {error.type}"
print(json.dumps([outcome]))
