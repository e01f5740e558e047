"""One text, one prompt: every way of asking gives the model the tokens that the model is served.

What is served is transformers' ``apply_chat_template`` with ``tokenize=True``.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, processors

from layerguard.runtime import Guard, Verdict
from layerguard.runtime.rows.jsonl import read_rows
from layerguard.runtime.text.request import request
from tests.runtime.streaming.cases import same
from tests.tiny import rescore
from tests.tiny_decoder import CORPUS, make_all_params, make_bundle, make_tokenizer

transformers = pytest.importorskip("transformers", reason="compares with transformers")

_TURNS = (
    "{% for turn in messages %}<|im_end|>{{ turn.role }}: {{ turn.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_end|>assistant:{% endif %}"
)
_TEMPLATES = {"a template with BOS": "{{ bos_token }}" + _TURNS, "a template without": _TURNS}
TEXTS = ("the garden", " the garden\n", "\n\n\tthe", "the <s> garden </s>", *CORPUS)
CHATS: list[list[dict[str, Any]]] = [
    [{"role": "system", "content": " low hills "}, {"role": "user", "content": " a "}],
    [{"role": "system", "content": "low"}, {"role": "user", "content": " "}],
    [
        {"role": "user", "content": "the\n"},
        {"role": "assistant", "content": " rain"},
        {"role": "tool", "content": [{"type": "text", "text": "now "}]},
    ],
]


def _tokenizer(*, opens: bool) -> Tokenizer:
    """The toy tokenizer; its post-processor puts BOS before a text, or nothing."""
    tokenizer = make_tokenizer()
    if not opens:
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def _served(tokenizer: Tokenizer, source: str, messages: Any) -> list[int]:
    """The ids that transformers gives to the model."""
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", chat_template=source
    )
    ids: list[int] = fast.apply_chat_template(
        messages,
        tokenize=True,
        add_generation_prompt=True,
        return_dict=False,
    )
    return ids


def _user(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def _first_rules(bundle: Path) -> Path:
    """A bundle from before the text rules had versions."""
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_bytes())
    del manifest["text"]["rules_version"]
    path.write_text(json.dumps(manifest), encoding="utf-8")
    return bundle


@pytest.fixture(
    scope="module",
    params=[(opens, name) for opens in (True, False) for name in _TEMPLATES],
    ids=lambda pair: f"a tokenizer {'with' if pair[0] else 'without'} BOS, {pair[1]}",
)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Guard, Callable[[Any], list[int]]]:
    """A guard, and the ids that its model is served."""
    opens, name = request.param
    tokenizer, source = _tokenizer(opens=opens), _TEMPLATES[name]
    folder = tmp_path_factory.mktemp("served") / "bundle"
    bundle = make_bundle(folder, template="chat", chat_template=source, tokenizer=tokenizer)
    return Guard.load(bundle, threads=1), lambda messages: _served(tokenizer, source, messages)


def _prompts(guard: Guard, **asked: Any) -> Iterator[tuple[str, list[int]]]:
    """For every way to pass a request: its name and the ids of the prompt."""
    reader = guard.backbone.reader
    for view in ("prompt", "conversation"):
        (window,) = reader.read(request(**asked), {view})[view].windows
        yield view, list(window)
    with guard.stream(**asked) as stream:
        assert stream.conversation is not None, stream.rescoring
        yield "stream", list(stream.conversation.sequence.ids)


@pytest.mark.parametrize("text", [text for text in TEXTS if "<s>" not in text])
def test_a_text_is_served_as_a_turn_of_the_user(served: Any, text: str) -> None:
    """Text, prompt and one-turn chat give transformers' ids, with its BOS."""
    guard, expected = served
    wanted = expected(_user(text))
    for asked in ({"text": text}, {"prompt": text}, {"messages": _user(text)}):
        for way, ids in _prompts(guard, **asked):
            assert ids == wanted, (asked, way)


@pytest.mark.parametrize("number", range(len(CHATS)))
def test_a_chat_is_served_as_it_is(served: Any, number: int) -> None:
    """Several turns, blanks at their ends, a tool's answer in parts."""
    guard, expected = served
    chat = CHATS[number]
    plain = [{**t, "content": t["content"][0]["text"]} if number == 2 and t is chat[2] else t
             for t in chat]  # fmt: skip
    for way, ids in _prompts(guard, messages=chat):
        assert ids == expected(plain), way


def test_special_tokens_come_from_the_template_alone(served: Any) -> None:
    """Typed ones are text; those of the template occur as in transformers."""
    guard, expected = served
    plain = expected(_user("the  garden "))
    for _, ids in _prompts(guard, text="the <s> garden </s>"):
        assert [ids.count(token) for token in range(4)] == [plain.count(t) for t in range(4)]


def _verdicts(guard: Guard, folder: Path, text: str) -> Iterator[tuple[str, Verdict]]:
    """The verdicts on a text by every way to pass it."""
    rows = folder / "rows.jsonl"
    asked = ({"text": text}, {"prompt": text}, {"messages": _user(text)})
    rows.write_text("".join(json.dumps(row) + "\n" for row in asked), encoding="utf-8")
    for row in read_rows([rows]).good:
        yield "a row", guard.check_requests([row.request])[0]
    for one in asked:
        yield "check", guard.check(**one)
        with guard.stream(**one) as stream:
            yield "stream", stream.verdict
    for one in asked[1:]:
        first = next(iter(guard.generate(**one, max_new_tokens=1, on_flag="log")))
        assert first.kind == "prompt"
        yield "generate", first.verdict


@pytest.mark.parametrize("text", ["", " ", "\n \t", *TEXTS])
def test_every_way_of_asking_gives_one_verdict(served: Any, tmp_path: Path, text: str) -> None:
    """Text, prompt, chat, row, stream and answer agree on every detector's score."""
    guard, _ = served
    expected = guard.check(text or " ")
    for way, verdict in _verdicts(guard, tmp_path, text):
        try:
            same(verdict, expected)
        except AssertionError as error:
            raise AssertionError(way) from error


@pytest.mark.parametrize("text", ["", "\n", " \t "])
def test_white_space_alone_is_read_as_one_space(served: Any, text: str) -> None:
    """This holds for a text and for a single user turn."""
    guard, expected = served
    for asked in ({"text": text}, {"messages": _user(text)}):
        for way, ids in _prompts(guard, **asked):
            assert ids == expected(_user(" ")), way


def test_bundles_of_the_first_rules_keep_them(tmp_path: Path) -> None:
    """They were calibrated with BOS before every chat, and with stripped texts."""
    tokenizer = _tokenizer(opens=True)
    for name, source in _TEMPLATES.items():
        bundle = make_bundle(
            tmp_path / name, template="chat", chat_template=source, tokenizer=tokenizer
        )
        guard = Guard.load(rescore(_first_rules(bundle)), threads=1)
        bare = _served(tokenizer, source.removeprefix("{{ bos_token }}"), _user("the garden"))
        chat = _served(tokenizer, source.removeprefix("{{ bos_token }}"), _user(" the garden\n"))
        for way, ids in _prompts(guard, text=" the garden\n"):
            assert ids == [1, *bare], way
        for way, ids in _prompts(guard, messages=_user(" the garden\n")):
            assert ids == [1, *chat], way


def test_a_threshold_means_the_same_for_a_chat_and_a_text(tmp_path: Path) -> None:
    """Scores of two texts are on the same sides of a threshold in any form."""
    params = make_all_params()
    bundle = make_bundle(tmp_path / "a", params, template="chat", chat_template=_TURNS)
    scores = [Guard.load(bundle, threads=1).check(t).readings["lcf"].score for t in TEXTS]
    params["lcf"]["threshold"] = np.array(np.median(scores))
    guard = Guard.load(
        make_bundle(tmp_path / "b", params, template="chat", chat_template=_TURNS), threads=1
    )
    flagged = [guard.check(text).readings["lcf"].flagged for text in TEXTS]
    assert set(flagged) == {True, False}
    chats = [guard.check(messages=_user(text)).readings["lcf"].flagged for text in TEXTS]
    assert chats == flagged
