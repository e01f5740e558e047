"""The conversation view: tokens of prompt and answer, and the role of each token."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerguard.runtime import Bundle
from layerguard.runtime.text import template as module
from layerguard.runtime.text.request import Request, request
from layerguard.runtime.text.roles import owners, role_of, token_roles
from layerguard.runtime.text.template import Template
from layerguard.runtime.text.tokens import TokenReader, Windows
from layerguard.runtime.types import ROLES
from tests.runtime.tamper import edit_manifest, within
from tests.tiny import WORDS, make_bundle

_CHAT = (
    "{% if messages | length == 1 and messages[0].role == 'tool' %}"
    "{{ raise_exception('no') }}{% endif %}"
    "{% for m in messages %}[CLS] {{ m.content }} <|im_end|> {% endfor %}"
    "{% if add_generation_prompt %}the a{% endif %}"
)
"""Each turn opens with [CLS], ``the a`` opens the answer; a tool alone is refused."""

_SAID = st.lists(st.sampled_from([*WORDS[5:12], "[SEP]", "<|im_end|>"]), min_size=1, max_size=4)
_TURNS = st.lists(st.tuples(st.sampled_from(ROLES[:3]), _SAID.map(" ".join)), max_size=6)


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> TokenReader:
    """A reader of chats with a large window."""
    folder = tmp_path_factory.mktemp("roles") / "bundle"
    bundle = make_bundle(folder, template="chat", chat_template=_CHAT)
    return TokenReader(Bundle.load(edit_manifest(bundle, _roomy)))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> TokenReader:
    """A reader whose template is only the prompt."""
    bundle = make_bundle(tmp_path_factory.mktemp("plain") / "bundle")
    return TokenReader(Bundle.load(edit_manifest(bundle, _roomy)))


def _roomy(manifest: Any) -> None:
    manifest["text"]["max_tokens"] = 500


def _conversation(reader: TokenReader, one: Request) -> Windows:
    found = reader.read(one, {"conversation"})["conversation"]
    assert [*map(len, found.roles)] == [*map(len, found.windows)]
    return found


def _spelled(reader: TokenReader, one: Request) -> list[tuple[str, str]]:
    """The text and role of each token of a conversation in one window."""
    found = _conversation(reader, one)
    pairs = zip(found.windows[0], found.roles[0], strict=True)
    return [(WORDS[token], ROLES[role]) for token, role in pairs]


@given(prompt=_SAID, response=_SAID)
def test_a_conversation_is_the_prompt_and_the_literal_response(
    plain: TokenReader, prompt: list[str], response: list[str]
) -> None:
    """The ids of the prompt view, followed by those of the response."""
    one = request(prompt=" ".join(prompt), response=" ".join(response))
    prompt_ids = plain.read(one, {"prompt"})["prompt"].windows[0]
    answer = plain.literal(" ".join(response))
    found = _conversation(plain, one)
    assert found.windows == (prompt_ids + answer,)
    assert found.roles == (b"\1" * len(prompt_ids) + b"\2" * len(answer),)
    assert found.tokens == len(prompt_ids + answer)


@given(turns=_TURNS, asked=_SAID)
def test_a_chat_is_read_as_its_prompt_and_its_last_answer(
    chat: TokenReader, turns: list[tuple[str, str]], asked: list[str]
) -> None:
    """The ids of the prompt view, followed by the last answer."""
    messages = [{"role": "user", "content": " ".join(asked)}]
    messages += [{"role": role, "content": text} for role, text in turns]
    one = request(messages=messages)
    prompt_ids = chat.read(one, {"prompt"})["prompt"].windows[0]
    found = _conversation(chat, one)
    assert found.windows == (prompt_ids + chat.literal(one.answer),)
    answered = len(found.windows[0]) - len(prompt_ids)
    assert found.roles[0][len(prompt_ids) :] == b"\2" * answered
    assert {ROLES[role] for role in found.roles[0]} <= {turn["role"] for turn in messages}


def test_every_turn_has_its_role(chat: TokenReader) -> None:
    """The opening of an answer belongs to the turn before it; a closing to its own turn."""
    messages = [
        {"role": "system", "content": "quiet"},
        {"role": "user", "content": "garden"},
        {"role": "assistant", "content": "boats lay"},
        {"role": "tool", "content": "rain"},
        {"role": "assistant", "content": "still"},
    ]
    assert _spelled(chat, request(messages=messages)) == [
        ("[CLS]", "system"), ("quiet", "system"), ("<|im_end|>", "system"),
        ("[CLS]", "user"), ("garden", "user"), ("<|im_end|>", "user"),
        ("[CLS]", "assistant"), ("boats", "assistant"), ("lay", "assistant"),
        ("<|im_end|>", "assistant"),
        ("[CLS]", "tool"), ("rain", "tool"), ("<|im_end|>", "tool"), ("the", "tool"),
        ("a", "tool"), ("still", "assistant"),
    ]  # fmt: skip


def test_special_tokens_that_a_user_types_stay_text(chat: TokenReader) -> None:
    """They stay text in a prompt, in a chat and in an answer."""
    messages = [
        {"role": "user", "content": "a <|im_end|> b"},
        {"role": "assistant", "content": "[SEP] now"},
    ]
    found = _spelled(chat, request(messages=messages))
    assert [word for word, _ in found].count("<|im_end|>") == 1
    assert "[SEP]" not in [word for word, _ in found]


def test_a_chat_up_to_a_turn_that_is_refused_gives_it_nothing(chat: TokenReader) -> None:
    """A template may refuse part of a chat that it takes whole: the next turn owns its words."""
    messages = [{"role": "tool", "content": "rain"}, {"role": "user", "content": "garden"}]
    found = _spelled(chat, request(messages=messages))
    assert {role for _, role in found} == {"user"}


@pytest.mark.parametrize("view", ["prompt", "conversation"])
def test_without_an_answer_both_views_have_the_same_ids(chat: TokenReader, view: Any) -> None:
    """The two views then share a row of the graph."""
    messages = [{"role": "user", "content": "the garden"}, {"role": "system", "content": "now"}]
    one = request(messages=messages)
    both = chat.read(one, {"prompt", "conversation"})
    assert both[view].windows == both["prompt"].windows


@given(ids=st.lists(st.integers(5, len(WORDS) - 1), max_size=60), split=st.integers(0, 60))
@pytest.mark.parametrize("rule", [("head-tail", 12), ("sliding", 12), ("sliding", 11)], ids=str)
def test_windows_keep_roles_beside_their_tokens(
    tmp_path_factory: pytest.TempPathFactory, rule: Any, ids: list[int], split: int
) -> None:
    """In every window, roles stay aligned with their tokens."""
    reader = _READERS.get(rule)
    if reader is None:
        bundle = make_bundle(tmp_path_factory.mktemp("cut") / "bundle", windows=rule[0])

        def edit(manifest: Any) -> None:
            manifest["text"].update(max_tokens=rule[1], max_windows=100)

        reader = _READERS[rule] = TokenReader(Bundle.load(edit_manifest(bundle, edit)))
    asked, said = (" ".join(WORDS[i] for i in part) for part in (ids[:split], ids[split:]))
    found = _conversation(reader, request(prompt=asked or "a", response=said))
    for window, roles in zip(found.windows, found.roles, strict=True):
        assert len(window) <= rule[1]
        assert window[0] == WORDS.index("[CLS]")
        assert roles[0] == 1
        assert roles == bytes(sorted(roles))
        separators = [place for place, token in enumerate(window) if token == WORDS.index("[SEP]")]
        assert all(roles[place] == 1 for place in separators)
        assert all(roles[place + 1 :] == b"\2" * (len(roles) - place - 1) for place in separators)


_READERS: dict[Any, TokenReader] = {}


@pytest.mark.parametrize(
    ("name", "role"),
    [("system", 0), ("developer", 0), ("User", 1), ("critic", 1), ("model", 2), ("function", 3)],
)
def test_names_of_roles(name: str, role: int) -> None:
    """Model families name roles differently; an unknown name has the role user."""
    assert role_of(name) == role


@given(
    parts=st.lists(st.tuples(st.text("ab", max_size=5), st.integers(0, 3)), min_size=1, max_size=6)
)
def test_prefixes_own_what_they_add(parts: list[tuple[str, int]]) -> None:
    """If each prefix starts the whole text, each turn owns the text that it added."""
    whole = "".join(text for text, _ in parts)
    ends = [sum(len(text) for text, _ in parts[: i + 1]) for i in range(len(parts))]
    prefixes = [(whole[:end], role) for end, (_, role) in zip(ends, parts, strict=True)]
    found = token_roles(range(1, len(whole) + 1), owners(whole, prefixes[:-1], parts[-1][1]))
    assert found == b"".join(bytes([role]) * len(text) for text, role in parts)


_LONE_TURNS = {
    "chat": _CHAT,
    "system first": (
        "{% if messages[0].role == 'system' %}{% set rest = messages[1:] %}"
        "rules {{ messages[0].content }} now {% else %}{% set rest = messages %}{% endif %}"
        "{% for m in rest %}{% if loop.last %}{% endif %}{{ m.role }} {{ m.content | trim }}|"
        "{% endfor %}{% if add_generation_prompt %}assistant {% endif %}"
    ),
    "looks ahead": (
        "{% set n = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}"
        "{% set n.last = loop.index0 %}{% endif %}{% endfor %}"
        "{% for m in messages %}<|im_end|>{{ m.role }}\n{{ m.content }}\n"
        "{% if loop.length > 99 %}never{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_end|>assistant\n{% endif %}"
    ),
}


@given(turns=_TURNS, asked=_SAID)
@pytest.mark.parametrize("case", _LONE_TURNS)
def test_long_chats_have_the_roles_that_short_ones_have(
    case: str, turns: list[tuple[str, str]], asked: list[str]
) -> None:
    """Rendering the chat once gives what rendering it up to each turn gives."""
    template = Template("chat", _LONE_TURNS[case], {}, ["<|im_end|>", "[SEP]"])
    messages = [{"role": "user", "content": " ".join(asked)}]
    messages += [{"role": role, "content": text} for role, text in turns]
    one = request(messages=messages)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_MOST_RENDERED", -1)
        found = template.owners(one)
    assert found == template.owners(one)


def test_roles_take_a_time_that_grows_with_the_turns() -> None:
    """Ten thousand turns are rendered twice, not ten thousand times."""
    messages = [{"role": ROLES[1 + i % 2], "content": "hi"} for i in range(10_001)]
    template = Template("chat", _LONE_TURNS["system first"], {}, [])
    with within(20):
        parts = template.owners(request(messages=messages))
    assert len(parts) == len(messages)
