"""Chat templates give what transformers' ``apply_chat_template`` gives, letter for letter.

The templates are short ones of the tests' own, each with one construct of released templates.
"""

import re
from datetime import UTC, datetime
from typing import Any

import pytest

from layerguard.runtime.errors import InputError
from layerguard.runtime.text.request import request
from layerguard.runtime.text.template import Template
from tests.tiny_decoder import SPECIAL, make_tokenizer

transformers = pytest.importorskip("transformers", reason="compares with transformers")

_USER = {"role": "user", "content": "Où est-il ? <b>&\x7f</b>"}
_SYSTEM = {"role": "system", "content": "Be kind."}
_ANSWER = {"role": "assistant", "content": "There."}
_ARGUMENTS = {"city": "Århus", "days": 2, "exact": True}
_TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "søg", "parameters": {"b": 1, "a": [2]}},
}


def _called(arguments: Any, **more: Any) -> list[dict[str, Any]]:
    """A chat with a tool call and the tool's result."""
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": arguments}}
    return [
        _USER,
        {"role": "assistant", "content": None, "tool_calls": [call], **more},
        {"role": "tool", "content": "rain", "tool_call_id": "1", "name": "weather"},
    ]


def _ours(source: str, messages: Any, tools: Any = None, version: int = 2) -> str:
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    template = Template("chat", source, tokens, [], version)
    (piece,) = template.render(request(messages=messages, tools=tools))
    return piece[0]


def _theirs(source: str, messages: Any, tools: Any = None) -> str:
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=make_tokenizer(), bos_token="<s>", eos_token="</s>", chat_template=source
    )
    text: str = tokenizer.apply_chat_template(
        messages, tools=tools, tokenize=False, add_generation_prompt=True
    )
    return text


_TURNS = "{% for m in messages %}<|im_end|>{{ m.role }}: {{ m.content }}\n{% endfor %}"
QWEN = """\
{%- if tools %}{{ '<tools>' }}{% for tool in tools %}
{{ tool | tojson }}{% endfor %}{{ '\\n</tools>\\n' }}{% endif %}
{%- for m in messages %}
    {%- if m.role == 'assistant' and m.tool_calls %}
        {{- '<|im_end|>assistant' }}
        {%- if m.content %}{{ '\\n' + m.content }}{% endif %}
        {%- for call in m.tool_calls %}
            {%- if call.function is defined %}{% set call = call.function %}{% endif %}
            {{- '\\n<call>{"name": "' + call.name + '", "arguments": ' }}
            {{- call.arguments | tojson }}{{ '}</call>\\n' }}
        {%- endfor %}
    {%- else %}{{ '<|im_end|>' + m.role + '\\n' + m.content + '\\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_end|>assistant\\n' }}{% endif %}"""
"""Calls as JSON, as in Qwen 2.5."""
LLAMA = """\
{{- bos_token }}
{%- for m in messages %}
    {%- if 'tool_calls' in m %}
        {%- if m.tool_calls | length != 1 %}{{ raise_exception('one call at a time') }}{% endif %}
        {%- set call = m.tool_calls[0].function %}
        {{- '<|im_end|>assistant ' + call.name + '.call(' }}
        {%- for name, value in call.arguments | items %}
            {{- name + '=' + (value | tojson) }}{% if not loop.last %}{{ ', ' }}{% endif %}
        {%- endfor %}{{ ')' }}
    {%- else %}{{ '<|im_end|>' + m.role + ' ' + m.content | trim }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_end|>assistant' }}{% endif %}"""
"""Arguments walked one by one, as in Llama 3.1's own tools."""

_CONSTRUCTS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "a generation block": (
        (
            "{% for m in messages %}\n  {% if m.role == 'assistant' %}\n  {% generation %}\n"
            "  {{ m.content }}</s>\n  {% endgeneration %}\n  {% else %}{{ m.content }}\n"
            "  {% endif %}\n{% endfor %}"
        ),
        [_USER, _ANSWER, _USER],
    ),
    "a generation block with dashes": (
        (
            "{%- for m in messages -%} a {%- generation -%} {{ m.content }} {%- endgeneration -%}"
            " b {%- endfor -%}"
        ),
        [_USER, _ANSWER, _USER],
    ),
    "names set in a generation block end with it": (
        "{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}",
        [_USER],
    ),
    "a loop in a generation block": (
        (
            "{% generation %}{% for m in messages %}{{ loop.index }}{{ m.role }}{% endfor %}"
            "{% endgeneration %}"
        ),
        [_USER, _ANSWER, _USER],
    ),
    "break and continue": (
        (
            "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.content }}"
            "{% if m.role == 'assistant' %}{% break %}{% endif %}{% endfor %}"
        ),
        [_SYSTEM, _USER, _ANSWER, _USER],
    ),
    "tojson": ("{{ messages | tojson }}", [_USER]),
    "tojson in ASCII": ("{{ messages | tojson(ensure_ascii=True) }}", [_USER]),
    "tojson by position": ("{{ messages | tojson(True, 2) }}", [_USER]),
    "tojson indented": ("{{ messages | tojson(indent=2) }}", [_USER]),
    "tojson compact": ("{{ messages | tojson(separators=(',', ':')) }}", [_USER]),
    "tojson sorted": ("{{ messages | tojson(sort_keys=True, indent='\t') }}", [_USER]),
    "null is absent": (
        (
            "{% for m in messages %}{{ m.content is defined }}{{ 'content' in m }}{{ m.name }};"
            "{% endfor %}"
        ),
        [{**_USER, "name": None}, {"role": "assistant", "content": None}, _USER],
    ),
    "documents are defined": ("{{ documents is defined }}{{ documents }}", [_USER]),
    "reasoning under another name": (
        (
            "{% for m in messages %}{{ m.reasoning_content }}|{{ m.thinking }}|{{ m | tojson }}"
            "{% endfor %}"
        ),
        [_USER, {**_ANSWER, "reasoning": "why"}, {**_ANSWER, "thinking": "so"}, _USER],
    ),
    "dict and namespace": (
        (
            "{% set n = namespace(a=1) %}{% for m in messages %}{% set n.a = n.a + 1 %}{% endfor %}"
            "{{ n.a }}{{ dict(b=2) | tojson }}"
        ),
        [_USER],
    ),
    "blanks at the ends": (_TURNS, [{"role": "user", "content": " \n x \n"}]),
    "a blank turn of several": (_TURNS, [_SYSTEM, {"role": "user", "content": ""}]),
}


@pytest.mark.parametrize("case", _CONSTRUCTS)
def test_a_construct_of_released_templates(case: str) -> None:
    """The same text, blanks and lines included."""
    source, messages = _CONSTRUCTS[case]
    assert _ours(source, messages) == _theirs(source, messages)


@pytest.mark.parametrize("source", [QWEN, LLAMA], ids=["qwen", "llama"])
@pytest.mark.parametrize(
    ("given", "read"),
    [
        (_ARGUMENTS, _ARGUMENTS),
        ('{"city": "Århus", "days": 2, "exact": true}', _ARGUMENTS),
        ('{"city":"\\u00c5rhus","days":2,\n"exact":true}', _ARGUMENTS),
        ("{}", {}),
        ("", {}),
    ],
    ids=["object", "text", "escaped", "empty object", "empty text"],
)
def test_arguments_in_a_text_are_the_object_that_they_spell(
    source: str, given: Any, read: Any
) -> None:
    """Tool calls of OpenAI's interface render as in transformers."""
    expected = _theirs(source, _called(read), [_TOOL])
    assert _ours(source, _called(given), [_TOOL]) == expected
    flat = _called(given)
    flat[1]["tool_calls"] = [{"name": "weather", "arguments": given}]
    if source == QWEN:
        assert _ours(source, flat, [_TOOL]) == expected


@pytest.mark.parametrize("given", ["{", "[1]", "3", '"x"', '{"a": "\\ud800"}', "[" * 100_000])
def test_other_arguments_stay_the_text_that_they_are(given: str) -> None:
    """Arguments that are no JSON object are rendered as text or refused."""
    assert _ours(QWEN, _called(given)) == _theirs(QWEN, _called(given))
    with pytest.raises(InputError, match="chat template refused the messages"):
        _ours(LLAMA, _called(given))


def test_bundles_of_the_first_rules_pass_arguments_on() -> None:
    """Their detectors were calibrated with unparsed arguments."""
    found = _ours(QWEN, _called('{"a": 1}', content=""), version=1)
    assert found == _theirs(QWEN, _called('{"a": 1}', content=""))


def test_the_callers_messages_are_not_changed() -> None:
    """Arguments are parsed into a copy."""
    messages = _called('{"a": 1}')
    _ours(QWEN, messages)
    assert messages == _called('{"a": 1}')


def test_what_a_template_raises_is_said() -> None:
    """The message of ``raise_exception`` reaches the caller."""
    messages = _called({})
    messages[1]["tool_calls"] *= 2
    with pytest.raises(InputError, match="one call at a time"):
        _ours(LLAMA, messages)


def test_the_date_is_one_day_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """``strftime_now`` formats as transformers does, always the same day: scores are reproducible.

    The day is 26 July 2024, which Llama 3's templates name where they are told no other.
    """

    class Clock:
        @staticmethod
        def now() -> datetime:
            return datetime(2024, 7, 26, tzinfo=UTC)

    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Clock)
    source = "{{ strftime_now('%d %b %Y, %A %H:%M') }}{{ strftime_now('%Y-%m-%d') }}"
    assert _ours(source, [_USER]) == _theirs(source, [_USER])


@pytest.mark.parametrize("ascii_only", ["true", "false"])
def test_special_tokens_in_json_stay_text(ascii_only: str) -> None:
    """A typed special token is a literal piece in JSON too, with ASCII escapes or without."""
    source = f"{{{{ messages | tojson(ensure_ascii={ascii_only}) }}}}"
    template = Template("chat", source, {}, SPECIAL)
    messages = [{"role": "user", "content": "é </s> x"}]
    pieces = template.render(request(messages=messages))
    assert [text for text, active in pieces if not active] == ["</s>"]
    assert "".join(text for text, _ in pieces) == _theirs(source, messages)


def test_an_open_generation_block_does_not_compile() -> None:
    """The fault of the template is named."""
    with pytest.raises(InputError, match=re.compile("does not compile.*endgeneration", re.DOTALL)):
        Template("chat", "{% generation %}x", {}, [])
