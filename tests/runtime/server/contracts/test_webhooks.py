"""agentgateway, Portkey, NeMo, KServe, Lakera and Azure: what is special in each."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from layerguard.runtime.server.service import Service
from tests.runtime.server.contracts.conftest import Post
from tests.runtime.server.contracts.forms import CHAT, FORMS, TEXT

Make = Callable[..., Service]
_ASSISTANT = {"role": "assistant", "content": "rain came"}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, str]]:
    """The requests that the service was asked about, with their directions."""
    found: list[tuple[Any, str]] = []
    check = Service.check

    async def watched(self: Service, requests: Any, **more: Any) -> Any:
        found.extend((one, more.get("direction", "request")) for one in requests)
        return await check(self, requests, **more)

    monkeypatch.setattr(Service, "check", watched)
    return found


def test_agentgateway_gets_both_forms_in_one_answer(post: Post) -> None:
    """It tells its actions apart by their shape: a rejection has a text and a status."""
    body = {"body": {"messages": CHAT}}
    (passed,) = post("/request", body)
    (blocked,) = post("/request", body, strict=True)
    assert passed.json()["action"].keys() == {"reason"}
    assert passed.json()["messages"] is None
    action = blocked.json()["action"]
    assert (type(action["body"]), action["status_code"]) == (str, 403)
    assert blocked.json()["messages"] == []


def test_agentgateway_asks_about_all_choices(post: Post, asked: list[tuple[Any, str]]) -> None:
    """One that is flagged stops the answer."""
    choices = [{"message": _ASSISTANT}, {"message": {"role": "assistant", "content": None}}]
    post("/response", {"body": {"choices": choices}})
    assert [(one.prompt, way) for one, way in asked] == [
        ("rain came", "response"),
        ("", "response"),
    ]


@pytest.mark.parametrize("choices", [["rain"], [{"text": "rain"}], [{"message": "rain"}]])
def test_agentgateway_is_told_of_choices_without_message(post: Post, choices: Any) -> None:
    """They would pass unread."""
    (response,) = post("/response", {"body": {"choices": choices}})
    assert (response.status_code, response.json()["action"]["status_code"]) == (400, 400)


def test_portkeys_answers_are_read_with_their_requests(
    post: Post, asked: list[tuple[Any, str]]
) -> None:
    """A chat and a plain prompt."""
    (after,) = [f.body for f in FORMS if f.body.get("eventType") == "afterRequestHook"]
    unread = {"prompt": TEXT, "messages": [_ASSISTANT]}  # the model reads the prompt alone
    plain = {**after, "requestType": "complete", "request": {"json": unread, "text": TEXT}}
    post("/portkey", after, plain)
    (chat, first), (pair, second) = asked
    assert (first, second) == ("response", "response")
    assert chat.messages == (*CHAT, _ASSISTANT)
    assert (pair.prompt, pair.response) == (TEXT, "rain came")


def test_portkeys_plain_prompt_is_read(post: Post, asked: list[tuple[Any, str]]) -> None:
    """Before the request, without an answer."""
    post("/portkey", {"request": {"text": TEXT}, "eventType": "beforeRequestHook"})
    assert [(one.prompt, one.response) for one, _ in asked] == [(TEXT, None)]


def test_nim_and_vllm_share_a_path_and_are_told_apart_by_the_model(post: Post) -> None:
    """VLLM's label is the larger probability; a list has one entry each."""
    nim, vllm, many = post(
        "/classify",
        {"input": TEXT},
        {"model": "strict", "input": TEXT},
        {"model": "guard", "input": [TEXT, TEXT]},
    )
    assert nim.json().keys() == {"jailbreak", "score"}
    (entry,) = vllm.json()["data"]
    assert (entry["label"], entry["num_classes"]) == ("layerguard", 2)
    assert entry["probs"][1] == max(entry["probs"])
    assert [one["label"] for one in many.json()["data"]] == ["pass", "pass"]


@pytest.mark.parametrize("path", ["/v1/classify", "/classify", "/model"])
def test_a_guard_that_fails_is_a_jailbreak_for_nemo(
    post: Post, make_service: Make, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """NeMo lets a text pass if it gets an error; it is told in both forms that it must not."""

    async def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError

    service = make_service()
    monkeypatch.setattr(service, "check", fail)
    (response,) = post(path, {"input": TEXT, "prompt": TEXT}, service=service)
    answer = response.json()
    assert (response.status_code, answer["jailbreak"], answer["score"]) == (200, True, 1.0)
    assert answer["data"][0]["label"] == "layerguard"
    assert answer["error"]["code"] == 500


def test_kserve_predicts_for_every_instance(post: Post) -> None:
    """Texts and objects; the two probabilities sum to one."""
    (response,) = post("/v1/models/main:predict", {"instances": [TEXT, {"text": TEXT}]})
    predictions = response.json()["predictions"]
    assert [one["0"] + one["1"] for one in predictions] == [1.0, 1.0]
    (wrong,) = post("/v1/models/main:predict", {"instances": [TEXT, {"prompt": TEXT}]})
    assert "instances[1]: found dict" in wrong.json()["error"]
    (empty,) = post("/v1/models/main:predict", {"instances": []})
    assert (empty.status_code, empty.json()) == (
        400,
        {"error": "instances: found none; expected at least one"},
    )
    (unknown,) = post("/v1/models/other:predict", {"instances": [TEXT]})
    assert "expected one of main, strict" in unknown.json()["error"]


def test_lakera_gives_details_only_if_asked(post: Post, asked: list[tuple[Any, str]]) -> None:
    """Each detector with whether it blocks; an answer is known by its role."""
    plain, full = post(
        "/v2/guard",
        {"messages": CHAT},
        {"messages": [*CHAT, _ASSISTANT], "breakdown": True, "payload": True},
        strict=True,
    )
    assert plain.json() == {"flagged": True}
    found = {one["detector_id"]: one["detected"] for one in full.json()["breakdown"]}
    assert found == {"lcf": False, "siren": True}
    assert full.json()["payload"] == []
    assert [way for _, way in asked] == ["request", "response"]


def test_prompt_shields_judges_prompt_and_documents_apart(
    post: Post, asked: list[tuple[Any, str]]
) -> None:
    """An absent prompt holds no attack."""
    path = "/contentsafety/text:shieldPrompt"
    (both,) = post(path, {"userPrompt": TEXT, "documents": ["a", "river"]}, strict=True)
    (documents,) = post(path, {"documents": ["a"]}, strict=True)
    attack = {"attackDetected": True}
    assert both.json() == {"userPromptAnalysis": attack, "documentsAnalysis": [attack, attack]}
    assert documents.json()["userPromptAnalysis"] == {"attackDetected": False}
    assert documents.json()["documentsAnalysis"] == [attack]
    assert [one.prompt for one, _ in asked] == [TEXT, "a", "river", "a"]


def test_prompt_shields_keeps_the_order(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the prompt and of the documents."""

    async def judge(_: Service, requests: Any, **__: Any) -> Any:
        return [SimpleNamespace(blocked="bad" in one.prompt) for one in requests]

    monkeypatch.setattr(Service, "check", judge)
    body = {"userPrompt": "a bad one", "documents": ["a", "bad too", "b"]}
    (response,) = post("/contentsafety/text:shieldPrompt", body)
    answer = response.json()
    assert answer["userPromptAnalysis"]["attackDetected"] is True
    found = [one["attackDetected"] for one in answer["documentsAnalysis"]]
    assert found == [False, True, False]
