"""An adapter without its framework says what to install."""

import importlib
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "framework", "package"),
    [
        ("langchain", "langchain.agents.middleware", "'langchain>=1.0'"),
        ("openai_agents", "agents", "openai-agents"),
        ("pydantic_ai", "pydantic_ai.capabilities", "'pydantic-ai-slim>=2'"),
        ("openai_guardrails", "guardrails", "openai-guardrails"),
        ("litellm", "litellm.exceptions", "'litellm[proxy]'"),
    ],
)
def test_the_import_error_says_what_to_install(
    module: str, framework: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the command, also where another version of the framework is installed."""
    monkeypatch.setitem(sys.modules, framework, None)
    monkeypatch.delitem(sys.modules, f"layerguard.integrations.{module}", raising=False)
    with pytest.raises(ImportError, match=f"run: pip install {package}".replace("[", r"\[")):
        importlib.import_module(f"layerguard.integrations.{module}")
