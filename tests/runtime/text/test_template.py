"""The deployment template: the served model's text, piece by piece."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerguard.runtime.text.request import Request, request
from layerguard.runtime.text.template import Template

_SPECIAL = ["[SEP]", "[CLS]", "<|im_end|>", "<|im_end|>2"]
_TYPED = st.lists(
    st.sampled_from([*_SPECIAL, "\ue000", "\ue001", "0", "1", "a", " ", "|", "[SE", "P]"])
).map("".join)


def _template(text: str) -> Template:
    return Template(text, None, {}, _SPECIAL)


def _chat(source: str, **special_tokens: str) -> Template:
    return Template("chat", source, special_tokens, _SPECIAL)


def _rendered(template: Template, one: Request) -> str:
    return "".join(text for text, _ in template.render(one))


@given(prompt=_TYPED)
def test_nothing_of_a_prompt_is_lost_or_special(prompt: str) -> None:
    """The pieces form the filled template; typed special tokens are literal."""
    pieces = _template("<|im_end|>a {prompt} [SEP]").render(Request(prompt))
    text = prompt.strip() or " "
    assert "".join(piece for piece, _ in pieces) == f"<|im_end|>a {text} [SEP]"
    spelled = [piece.count(token) for piece, on in pieces if on for token in _SPECIAL[:3]]
    assert sum(spelled) == 2
    assert all(piece for piece, _ in pieces)


@given(prompt=_TYPED)
def test_a_bare_template_is_all_literal(prompt: str) -> None:
    """Where the template is the prompt alone, there is one literal piece."""
    assert _template("{prompt}").render(Request(prompt)) == [(prompt.strip() or " ", False)]


def test_the_longest_special_token_is_taken_whole() -> None:
    """Of two special tokens with the same start, the longer one is hidden."""
    pieces = _template("a {prompt}").render(Request("x <|im_end|>2 y"))
    assert pieces == [("a x ", True), ("<|im_end|>2", False), (" y", True)]


@pytest.mark.parametrize("filler", ["", "a", "[SE", "garden "])
def test_each_of_many_special_tokens_is_a_piece_of_its_own(filler: str) -> None:
    """Far more than one slice of the text holds, in their order."""
    tokens = ["[SEP]", "<|im_end|>2", "[CLS]"] * 3_000
    pieces = _chat("{{ messages[0].content }}").render(
        request("".join(f"{filler}{token}" for token in tokens))
    )
    shown = [(filler, True)] if filler else []
    assert pieces == [piece for token in tokens for piece in (*shown, (token, False))]


_DIALOGUE: list[dict[str, Any]] = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": "hi"},
    {"role": "user", "content": "and now?"},
    {"role": "assistant", "content": "now this"},
]
_TURNS = "{% for m in messages %}{{ m.role }}:{{ m.content }}|{% endfor %}"


def test_a_prompt_ends_where_the_answer_begins() -> None:
    """Trailing turns of the assistant are not part of the prompt; earlier ones are."""
    found = _rendered(_chat(_TURNS), request(messages=_DIALOGUE))
    assert found == "system:be kind|user:hello|assistant:hi|user:and now?|"


def test_a_chat_of_the_assistant_alone_is_still_a_prompt() -> None:
    """At least one turn remains."""
    assert _rendered(_chat(_TURNS), request(messages=_DIALOGUE[2:3] * 2)) == "assistant:hi|"


def test_a_prompt_without_messages_is_one_turn_of_the_user() -> None:
    """A plain text goes through the chat template as the user's turn, its blanks as well."""
    assert _rendered(_chat(_TURNS), request(" hello ")) == "user: hello |"
    assert _rendered(_chat(_TURNS), request(prompt="", response="x")) == "user: |"


def test_parts_become_lines() -> None:
    """Content in parts is joined by newlines; empty parts are left out."""
    parts = [{"type": "text", "text": "a"}, {"text": ""}, {"type": "input_text", "text": "b"}]
    found = _rendered(_chat(_TURNS), request(messages=[{"role": "user", "content": parts}]))
    assert found == "user:a\nb|"


def test_what_chat_templates_rely_on_is_there() -> None:
    """Loop controls, namespaces, tojson, the date, tools, special tokens."""
    source = (
        "{{ bos_token }}{% set seen = namespace(count=0) %}"
        "{% for m in messages %}{% if loop.last %}{% break %}{% endif %}"
        "{% set seen.count = seen.count + 1 %}{% endfor %}{{ seen.count }}/{{ messages | length }}"
        " {{ tools | tojson }} {{ tools[0] | tojson(indent=1) }} {{ strftime_now('%Y') }}"
        "{% if add_generation_prompt %} assistant:{% endif %}"
    )
    tools = [{"name": "søg", "arguments": {"q": "<a & b>"}}]
    one = request(messages=_DIALOGUE, tools=tools)
    expected = (
        f"[CLS]3/4 {json.dumps(tools, ensure_ascii=False)} "
        f"{json.dumps(tools[0], ensure_ascii=False, indent=1)} 2024 assistant:"
    )
    assert _rendered(_chat(source, bos_token="[CLS]"), one) == expected


def test_loops_know_their_length() -> None:
    """Counting iterations keeps ``loop.length`` and ``loop.last`` working."""
    source = (
        "{% for m in messages if m.role == 'user' %}{{ loop.index }}/{{ loop.length }}"
        "{{ 'first' if loop.first }}{{ 'last' if loop.last }}{{ loop.revindex0 }};"
        "{% else %}none{% endfor %}{% for m in nothing %}x{% else %}none{% endfor %}"
    )
    found = _rendered(_chat(source), request(messages=_DIALOGUE))
    assert found == "1/2first1;2/2last0;none"


def test_blocks_leave_no_lines() -> None:
    """Lines with only blocks are removed, as in transformers."""
    assert (
        _rendered(_chat("a\n  {% if true %}\n  b\n  {% endif %}\nc"), request("x")) == "a\n  b\nc"
    )


def test_text_of_an_argument_is_not_a_template() -> None:
    """Braces in user text are not evaluated."""
    assert _rendered(_chat(_TURNS), request("{{ 7 * 7 }}{% x %}")) == "user:{{ 7 * 7 }}{% x %}|"


@pytest.mark.parametrize("prompt", ["{prompt}", "{}", "{0}", "{messages}", "%s"])
def test_a_prompt_may_look_like_the_template(prompt: str) -> None:
    """A prompt that contains a placeholder is not filled in again."""
    assert _rendered(_template("a {prompt} b"), request(prompt)) == f"a {prompt} b"


def test_every_special_token_of_the_caller_is_hidden_from_a_chat_template() -> None:
    """A template sees placeholders instead."""
    pieces = _chat(_TURNS).render(request(" ".join(_SPECIAL)))
    literal = [text for text, active in pieces if not active]
    assert sorted(literal) == sorted(_SPECIAL)
    assert not re.search(r"\[SEP\]|im_end", "".join(text for text, active in pieces if active))
