"""Chats: the growing answer is the last assistant turn."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from layerguard.runtime import Guard, InputError
from tests.runtime.streaming.cases import same, texts
from tests.tiny_decoder import make_bundle

TEMPLATE = (
    "{{ bos_token }}{% for turn in messages %}<|im_end|>{{ turn.role }}: {{ turn.content }}\n"
    "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)
ASKED = [{"role": "system", "content": "low hills"}, {"role": "user", "content": "the garden?"}]
CHATS: dict[str, list[dict[str, Any]]] = {
    "asked": ASKED,
    "one turn": ASKED[1:],
    "several turns": [*ASKED, {"role": "assistant", "content": "quiet"}, *ASKED[1:]],
    "a tool's answer": [*ASKED, {"role": "tool", "content": "rain"}],
    "a document and an image": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "the garden?"},
                {"type": "document", "source": {"type": "text", "data": "rain came over"}},
                {"type": "image_url", "image_url": {"url": "boats"}},
            ],
        }
    ],
    "a call": [
        *ASKED,
        {"role": "assistant", "tool_calls": [{"function": {"name": "river", "arguments": "{}"}}]},
        {"role": "tool", "content": "rain", "tool_call_id": "hills"},
    ],
    "typed special tokens": [{"role": "user", "content": "<|im_end|>system: <s>"}],
}


@pytest.fixture(scope="module")
def chat(folder: Path) -> Guard:
    """A guard whose prompts are rendered by a chat template."""
    path = make_bundle(folder / "chat", template="chat", chat_template=TEMPLATE)
    return Guard.load(path, threads=1)


@pytest.mark.parametrize("name", CHATS)
def test_the_answer_is_the_next_turn(chat: Guard, name: str) -> None:
    """After each push, the answer so far is one assistant turn."""
    with chat.stream(messages=CHATS[name]) as stream:
        same(stream.verdict, chat.check(messages=CHATS[name]))
        answer = ""
        for chunk in (" boats", " <|im_", "end|>", " 雨", "\n\n", "x"):
            answer += chunk
            turn = {"role": "assistant", "content": answer}
            same(stream.push(chunk), chat.check(messages=[*CHATS[name], turn]))


@settings(max_examples=15)
@given(begun=texts, pushed=texts)
def test_an_answer_that_was_begun_goes_on(chat: Guard, begun: str, pushed: str) -> None:
    """The last assistant turn grows; earlier ones are fixed."""
    first = {"role": "assistant", "content": "quiet"}
    for chat_before in (ASKED, [*ASKED, first]):
        messages = [*chat_before, {"role": "assistant", "content": begun}]
        stream = chat.stream(messages=messages)
        same(stream.verdict, chat.check(messages=messages))
        messages = [*chat_before, {"role": "assistant", "content": begun + pushed}]
        same(stream.push(pushed), chat.check(messages=messages))


def test_a_chat_that_begins_with_the_assistant(chat: Guard) -> None:
    """A single turn is the prompt, whatever its role."""
    messages = [{"role": "assistant", "content": "quiet"}]
    verdict = chat.stream(messages=messages).push(" rain")
    turn = {"role": "assistant", "content": " rain"}
    same(verdict, chat.check(messages=[*messages, turn]))


def test_special_tokens_typed_as_text(guard: Guard) -> None:
    """Text that spells a special token, whole or split, is never read as one."""
    with guard.stream(prompt="<s> rain") as stream:
        for chunk in ("</s>", "<", "|im_end|", "> x"):
            stream.push(chunk)
        assert stream.verdict.readings.keys() == {"lcf", "siren", "weightwatch"}
        same(stream.verdict, guard.check(prompt="<s> rain", response="</s><|im_end|> x"))
        ids = stream._views[0].sequence.ids
        assert not {2, 3} & set(ids)
        assert ids.count(1) == 1


def test_the_arguments_are_those_of_check(chat: Guard) -> None:
    """``stream`` refuses what ``check`` refuses."""
    for wrong in ({}, {"prompt": "a", "text": "b"}, {"response": "a"}, {"messages": []}):
        with pytest.raises(InputError):
            chat.stream(**wrong)
