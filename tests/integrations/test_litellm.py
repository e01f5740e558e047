"""The guardrail in LiteLLM's proxy, by the configuration of the page, over mocked models."""

import json
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from layerguard.integrations.gate import FAILED, REFUSAL
from layerguard.runtime import Guard
from tests.integrations import page
from tests.integrations.bundles import Texts, texts

pytest.importorskip("litellm", reason="needs LiteLLM: run `make integrations`")
import yaml
from fastapi.testclient import TestClient
from litellm.proxy import proxy_server


@pytest.fixture(scope="module")
def proxy(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A proxy with two models: ``good`` gives the harmless answer, ``bad`` the flagged one."""
    answers = {"good": texts().answer, "bad": texts().flagged_answer}
    parameters = {"model": "openai/m", "api_key": "none"}
    models = [
        {"model_name": name, "litellm_params": {**parameters, "mock_response": answer}}
        for name, answer in answers.items()
    ]
    place = tmp_path_factory.mktemp("proxy")
    (place / "guard").symlink_to(folder)
    (block,) = page.section("LiteLLM", "yaml")
    config = place / "config.yaml"
    key = f"sk-{secrets.token_hex(32)}"
    more = {"model_list": models, "general_settings": {"master_key": key}}
    config.write_text(block + yaml.safe_dump(more), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("CONFIG_FILE_PATH", str(config))
        with TestClient(proxy_server.app, headers={"Authorization": f"Bearer {key}"}) as client:
            yield client


def _ask(proxy: TestClient, model: str, text: str, **more: Any) -> Any:
    body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
    return proxy.post("/v1/chat/completions", json=body)


def _streamed(proxy: TestClient, model: str, text: str) -> tuple[str, list[Any]]:
    """The text of a streamed answer, and the errors in it."""
    answer = _ask(proxy, model, text, stream=True)
    lines = [line[6:] for line in answer.text.splitlines() if line[:6] == "data: "]
    events = [json.loads(line) for line in lines if line != "[DONE]"]
    deltas = [choice["delta"] for event in events for choice in event.get("choices", ())]
    errors = [event["error"] for event in events if "error" in event]
    return "".join(delta.get("content") or "" for delta in deltas), errors


def test_passes_a_harmless_chat(proxy: TestClient, said: Texts) -> None:
    """Whole and streamed."""
    answer = _ask(proxy, "good", said.harmless)
    assert answer.json()["choices"][0]["message"]["content"] == said.answer
    assert _streamed(proxy, "good", said.harmless) == (said.answer, [])


def test_blocks_a_flagged_prompt(proxy: TestClient, said: Texts) -> None:
    """With status 400 and the refusal."""
    answer = _ask(proxy, "good", said.flagged)
    assert answer.status_code == 400
    assert REFUSAL in answer.json()["error"]["message"]


def test_blocks_a_flagged_answer(proxy: TestClient, said: Texts) -> None:
    """The client gets nothing of it."""
    answer = _ask(proxy, "bad", said.harmless)
    assert answer.status_code == 400
    assert said.flagged_answer not in answer.text


def test_blocks_a_flagged_stream(proxy: TestClient, said: Texts, guard: Guard) -> None:
    """The client gets the beginning that was checked and passed, and an error."""
    text, errors = _streamed(proxy, "bad", said.harmless)
    assert len(text) < len(said.flagged_answer)
    assert said.flagged_answer.startswith(text)
    assert not guard.check(prompt=said.harmless, response=text).flagged
    assert errors


def test_fails_closed_where_the_guard_raises(
    proxy: TestClient, said: Texts, break_guard: Callable[[], None]
) -> None:
    """With status 503."""
    break_guard()
    answer = _ask(proxy, "good", said.harmless)
    assert answer.status_code == 503
    assert FAILED in answer.json()["error"]["message"]


def test_fails_closed_on_an_image(proxy: TestClient, said: Texts) -> None:
    """The guard cannot read it, so the model does not see it."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}}
    content = [{"type": "text", "text": said.harmless}, image]
    body = {"model": "good", "messages": [{"role": "user", "content": content}]}
    assert proxy.post("/v1/chat/completions", json=body).status_code == 400
