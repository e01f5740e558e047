"""OpenAI's SDK against the guard's moderations. Runs in the clients' environment."""

import json
import sys

import openai

given = json.load(sys.stdin)


def client(address: str) -> openai.OpenAI:
    """The SDK, without its own retries."""
    return openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)


def flagged(text: str) -> bool:
    """What a program that uses the SDK reads."""
    return client(given["guard"]).moderations.create(input=text).results[0].flagged


outcome = {
    "client": "OpenAI SDK, moderations",
    "version": openai.__version__,
    "blocked": [flagged(text) for text in given["block"]],
    "passed": [not flagged(text) for text in given["passes"]],
    "faults": [],
}
try:
    client(given["overloaded"]).moderations.create(input="a text")
    outcome["faults"].append("an overloaded guard raised no error")
except openai.InternalServerError as error:
    outcome["overload"] = (
        f"{error.status_code}, retry after {error.response.headers['retry-after']} s"
    )
image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}
if not client(given["guard"]).moderations.create(input=[image]).results[0].flagged:
    outcome["faults"].append("an image is not flagged, and no detector can read it")
try:
    client(given["guard"]).moderations.create(input=[])
    outcome["faults"].append("an empty list raised no error")
except openai.BadRequestError as error:
    outcome["error"] = f"{error.status_code} {error.type}"
print(json.dumps([outcome]))
