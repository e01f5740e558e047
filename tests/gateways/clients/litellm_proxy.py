"""LiteLLM's proxy with its configurations of the page: the generic guardrail and four others."""

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.gateways.environments import python, version_of
from tests.gateways.processes import free_port, running
from tests.gateways.setting import Outcome, Setting, configurations

_KEY = "sk-of-a-test"
_IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
_NAMES = {
    "layerguard": "LiteLLM, generic guardrail",
    "moderations": "LiteLLM, openai_moderation",
    "detector": "LiteLLM, ibm_guardrails",
    "lakera": "LiteLLM, lakera_v2",
    "prompt-shields": "LiteLLM, azure/prompt_shield",
}


def drive(setting: Setting) -> Iterator[Outcome]:
    """One outcome for each guardrail of the page."""
    interpreter = python(setting.environments, "litellm")
    version = version_of(interpreter, "litellm")
    with _proxy(setting, interpreter) as proxy:
        for guardrail, name in _NAMES.items():
            outcome = Outcome(name, version)
            outcome.blocked = [not _answered(proxy, guardrail, text) for text in setting.block]
            outcome.passed = [_answered(proxy, guardrail, text) for text in setting.passes]
            overloaded = f"{guardrail}-overloaded"
            closed = not _answered(proxy, overloaded, setting.passes[0])
            outcome.expect(closed, "an overloaded guard let a text pass")
            outcome.overload = "blocks" if closed else "passes"
            if guardrail == "layerguard":
                _generic(proxy, setting, outcome)
            yield outcome


def _generic(proxy: httpx.Client, setting: Setting, outcome: Outcome) -> None:
    """What only the generic guardrail does: answers, streams, and going on without the guard."""
    opened = _answered(proxy, "layerguard-open", setting.passes[0])
    outcome.expect(opened, "fail_open blocked although the guard answered 503")
    outcome.overload += ", passes with fail_open"
    answer = _chat(proxy, "layerguard", setting.bad_answer)
    outcome.expect(answer.status_code == 400, f"a flagged answer gave {answer.status_code}")
    image = _chat(proxy, "layerguard", [{"type": "text", "text": "see"}, _IMAGE])
    outcome.error = f"{image.status_code} for an image"
    outcome.expect(image.status_code >= 400, "an image passed")
    kind = _streamed(proxy, setting.passes[0])
    outcome.expect(kind[-1] == "[DONE]", "a stream that the guard passes did not end")
    bad = _streamed(proxy, setting.bad_answer)
    stopped = "error" in json.loads(bad[-1])
    outcome.expect(stopped, "a flagged stream ended without an error")
    words = sum("content" in event for event in bad[:-1])
    outcome.stream = f"stopped after {words} chunks" if stopped else "not stopped"


@contextmanager
def _proxy(setting: Setting, interpreter: Path) -> Iterator[httpx.Client]:
    port = free_port()
    path = setting.logs / "litellm.yaml"
    path.write_text(json.dumps(_configuration(setting)), encoding="utf-8")  # JSON is YAML
    command = [str(interpreter.parent / "litellm"), "--config", str(path), "--port", str(port)]
    address = f"http://127.0.0.1:{port}"
    with (
        running(
            [*command, "--host", "127.0.0.1"],
            f"{address}/health/liveliness",
            setting.logs / "litellm.log",
            environment={"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MASTER_KEY": _KEY},
        ),
        httpx.Client(
            base_url=address, timeout=120, headers={"authorization": f"Bearer {_KEY}"}
        ) as client,
    ):
        yield client


def _configuration(setting: Setting) -> dict[str, Any]:
    """The page's, with one guardrail at a time, and copies that ask the overloaded server."""
    texts = configurations("LiteLLM", "yaml")
    whole: dict[str, Any] = yaml.safe_load(setting.configured(texts[0]))
    guardrails = [one for text in texts for one in _guardrails(setting.configured(text))]
    overloaded = [
        one for text in texts for one in _guardrails(setting.configured(text, overloaded=True))
    ]
    guardrails += [
        {**one, "guardrail_name": f"{one['guardrail_name']}-overloaded"} for one in overloaded
    ]
    fail_open = copy.deepcopy(overloaded[0])
    fail_open["guardrail_name"] = "layerguard-open"
    fail_open["litellm_params"]["unreachable_fallback"] = "fail_open"
    whole["guardrails"] = [*guardrails, fail_open]
    for one in whole["guardrails"]:  # a call of this test names the one that it is for
        one["litellm_params"]["default_on"] = False
    return whole


def _guardrails(text: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(text)["guardrails"]
    return found


def _chat(proxy: httpx.Client, guardrail: str, content: Any, **more: Any) -> httpx.Response:
    messages = [{"role": "user", "content": content}]
    body = {"model": "chat", "messages": messages, "guardrails": [guardrail], **more}
    return proxy.post("/v1/chat/completions", json=body)


def _answered(proxy: httpx.Client, guardrail: str, text: str) -> bool:
    """Whether the model's answer came."""
    return _chat(proxy, guardrail, text).status_code == httpx.codes.OK


def _streamed(proxy: httpx.Client, prompt: str) -> list[str]:
    """The events of a streamed answer."""
    response = _chat(proxy, "layerguard", prompt, stream=True)
    return [
        line.removeprefix("data: ")
        for line in response.text.splitlines()
        if line.startswith("data: ")
    ]
