"""The clients that are libraries: scripts that run in their environments."""

from collections.abc import Iterator
from typing import Any

import yaml

from tests.gateways.environments import python
from tests.gateways.setting import Outcome, Setting, configurations, in_environment


def openai_sdk(setting: Setting) -> Iterator[Outcome]:
    """OpenAI's SDK."""
    yield from _run(setting, "clients", "openai_sdk.py")


def openai_guardrails(setting: Setting) -> Iterator[Outcome]:
    """OpenAI Guardrails."""
    yield from _run(setting, "agents", "openai_guardrails.py")


def triton(setting: Setting) -> Iterator[Outcome]:
    """Triton's client."""
    yield from _run(setting, "clients", "triton.py")


def nemo(setting: Setting) -> Iterator[Outcome]:
    """NeMo Guardrails: the page's classifier as FMS, vLLM and KServe, and the jailbreak rail."""
    classifier, jailbreak = configurations("NeMo Guardrails", "yaml")
    changes: dict[str, dict[str, Any]] = {
        "hf_classifier fms": {},
        "hf_classifier vllm": {"engine": "vllm"},
        "hf_classifier kserve": {
            "engine": "kserve",
            "model": setting.bundle,
            "blocked_labels": ["1"],
        },
    }
    rails = []
    for name, change in changes.items():
        table = yaml.safe_load(classifier)
        table["rails"]["config"]["hf_classifier"]["layerguard"] |= change
        rails.append(_rail(setting, name, yaml.safe_dump(table), reads_answers=True))
    rails.append(_rail(setting, "jailbreak NIM", jailbreak, reads_answers=False))
    table = yaml.safe_load(jailbreak)
    endpoint = {"server_endpoint": "http://127.0.0.1:8080/model"}
    table["rails"]["config"]["jailbreak_detection"] = endpoint
    rails.append(_rail(setting, "jailbreak model", yaml.safe_dump(table), reads_answers=False))
    yield from _run(setting, "nemo", "nemo.py", rails=rails)


def _rail(setting: Setting, name: str, text: str, *, reads_answers: bool) -> dict[str, Any]:
    return {
        "name": name,
        "config": "models: []\n" + setting.configured(text),
        "overloaded": "models: []\n" + setting.configured(text, overloaded=True),
        "reads_answers": reads_answers,
    }


def _run(setting: Setting, environment: str, script: str, **more: Any) -> list[Outcome]:
    given = {
        "guard": setting.guard,
        "overloaded": setting.overloaded,
        "bundle": setting.bundle,
        "block": setting.block,
        "passes": setting.passes,
        **more,
    }
    return in_environment(python(setting.environments, environment), script, given)
