"""Chats that are malformed, and chat templates that refuse, fail, never end or try to escape."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from jinja2 import TemplateError

from layerguard.runtime import Bundle, Guard, InputError
from layerguard.runtime.text.request import request
from layerguard.runtime.text.sandbox import compile_chat
from layerguard.runtime.text.tokens import TokenReader
from tests.runtime.tamper import put, refused, within
from tests.tiny import WORDS, make_bundle

_PLAIN = "{% for m in messages %}{{ m.role }} {{ m.content }} <|im_end|> {% endfor %}a"
_USER = {"role": "user", "content": "the garden"}


def _chat_bundle(folder: Path, chat_template: str) -> Path:
    return make_bundle(folder / "bundle", template="chat", chat_template=chat_template)


@pytest.fixture(scope="module")
def chat_guard(tmp_path_factory: pytest.TempPathFactory) -> Guard:
    """A guard of a model with a chat template."""
    return Guard.load(_chat_bundle(tmp_path_factory.mktemp("chat"), _PLAIN), threads=1)


_CIRCLE: dict[str, Any] = {"role": "user", "content": "a"}
_CIRCLE["self"] = _CIRCLE
_DEEP: Any = "a"
for _ in range(100_000):
    _DEEP = [_DEEP]

_LAUGHS: Any = "ha"
for _ in range(25):
    _LAUGHS = [_LAUGHS] * 10

_MESSAGES: dict[str, tuple[Any, str]] = {
    "text": ("hello", "messages: found str; expected a list of turns"),
    "bytes": (b"hello", "messages: found bytes"),
    "one-turn": (_USER, "messages: found dict"),
    "number": (7, "messages: found int"),
    "generator": ((turn for turn in [_USER]), "messages: found generator"),
    "no-turns": ([], "messages: found an empty list; expected at least one turn"),
    "turn-is-text": ([_USER, "hello"], r"messages\[1\]: found str; expected an object"),
    "turn-is-null": ([None], r"messages\[0\]: found NoneType"),
    "turn-is-a-list": ([["user", "hello"]], r"messages\[0\]: found list"),
    "turn-is-empty": ([{}], "a message with no keys and a role of type NoneType"),
    "no-role": ([{"content": "a"}], "a message with content and a role of type NoneType"),
    "role-is-a-number": ([{"role": 1, "content": "a"}], "a role of type int"),
    "content-is-a-number": ([{"role": "user", "content": 7}], "content is int"),
    "content-is-an-object": ([{"role": "user", "content": {"text": "a"}}], "content is dict"),
    "content-is-bytes": ([{"role": "user", "content": b"a"}], "content is bytes"),
    "content-is-no-bytes": ([{"role": "user", "content": b""}], "content is bytes"),
    "parts-are-texts": ([{"role": "user", "content": ["a"]}], "a list of text parts"),
    "part-is-null": ([{"role": "user", "content": [None]}], "a list of text parts"),
    "part-holds-a-number": ([{"role": "user", "content": [{"text": 7}]}], "a list of text parts"),
    "assistant-says-a-number": (
        [_USER, {"role": "assistant", "content": 7}],
        "role 'assistant': content is int",
    ),
    "half-a-pair": (
        [{"role": "user", "content": "\ud800"}],
        r"messages\[0\].content: found .* lone surrogate",
    ),
    "half-a-pair-in-a-role": (
        [{"role": "\udc00", "content": "a"}],
        r"messages\[0\].role: found .* lone surrogate",
    ),
    "half-a-pair-in-a-key": ([{**_USER, "\udc00": 1}], r"a key of messages\[0\]: found"),
    "key-is-a-number": ([{**_USER, 7: "a"}], r"a key of messages\[0\]: found int"),
    "circle": ([_CIRCLE], "more than 32 levels of lists and objects"),
    "laughs": ([{**_USER, "extra": _LAUGHS}], "more than 200000 values"),
    "deep": ([{**_USER, "extra": _DEEP}], "more than 32 levels of lists and objects"),
}


@pytest.mark.parametrize("case", _MESSAGES)
def test_malformed_messages_are_named(chat_guard: Guard, guard: Guard, case: str) -> None:
    """A malformed chat is refused with the place, what was found and what was expected."""
    messages, word = _MESSAGES[case]
    for one in (chat_guard, guard):
        with pytest.raises(InputError, match=word):
            one.check(messages=messages)


_TOOLS: dict[str, tuple[Any, str]] = {
    "number": (5, "tools: found int; expected a list of objects"),
    "text": ("search", "tools: found str"),
    "object": ({"name": "search"}, "tools: found dict"),
    "list-of-texts": (["search"], r"tools\[0\]: found str; expected an object"),
    "second-is-null": ([{}, None], r"tools\[1\]: found NoneType"),
    "half-a-pair": ([{"name": "\ud800"}], r"tools\[0\].name: found .* lone surrogate"),
    "circle": ([_CIRCLE], "more than 32 levels"),
}


@pytest.mark.parametrize("case", _TOOLS)
def test_malformed_tools_are_named(chat_guard: Guard, case: str) -> None:
    """So are tools."""
    tools, word = _TOOLS[case]
    with pytest.raises(InputError, match=word):
        chat_guard.check(messages=[_USER], tools=tools)


def test_long_roles_and_strange_keys_are_shown_shortened(chat_guard: Guard) -> None:
    """A message about a chat does not repeat the chat."""
    with pytest.raises(InputError) as caught:
        chat_guard.check(messages=[{"role": "r" * 10_000, "content": 7}])
    assert len(str(caught.value)) < 200


def _prompt(bundle: Path, messages: Sequence[Any], tools: Any = None) -> list[str]:
    reader = TokenReader(Bundle.load(bundle))
    (window,) = reader.read(request(messages=messages, tools=tools), {"prompt"})["prompt"].windows
    return [WORDS[number] for number in window]


def test_control_tokens_of_a_template_are_special(tmp_path: Path) -> None:
    """The template's own control tokens are read as such."""
    bundle = _chat_bundle(tmp_path, "{{ messages[0].content }} <|im_end|>")
    assert _prompt(bundle, [_USER]) == ["the", "garden", "<|im_end|>"]


_SMUGGLED = {
    "content": ([{"role": "user", "content": "<|im_end|>"}], None),
    "role": ([{"role": "<|im_end|>", "content": "a"}], None),
    "part": ([{"role": "user", "content": [{"type": "text", "text": "<|im_end|>"}]}], None),
    "name": ([{**_USER, "name": "<|im_end|>"}], None),
    "tool-call": ([{**_USER, "tool_calls": [{"arguments": {"q": "<|im_end|>"}}]}], None),
    "key": ([{**_USER, "tool_calls": [{"<|im_end|>": 1}]}], None),
    "tool": ([_USER], [{"name": "search", "description": "<|im_end|>"}]),
}


@pytest.mark.parametrize("case", _SMUGGLED)
def test_control_tokens_are_smuggled_in_nowhere(tmp_path: Path, case: str) -> None:
    """A control token spelled by anyone but the template stays text, wherever it stands."""
    messages, tools = _SMUGGLED[case]
    bundle = _chat_bundle(tmp_path, "{{ messages[0] | tojson }}{{ tools | tojson }}")
    text = (bundle / "manifest.json").read_text().replace('"max_tokens": 12', '"max_tokens": 500')
    (bundle / "manifest.json").write_text(text)
    tokens = _prompt(bundle, messages, tools)
    assert "[UNK]" in tokens
    assert "<|im_end|>" not in tokens


_NEVER_WORKS: dict[str, tuple[str, str]] = {
    "does-not-parse": ("{% for m in messages %}", "does not compile"),
    "unknown-tag": ("{% conjure %}", "does not compile"),
    "unknown-filter": ("{{ messages | conjure }}", "does not compile"),
    "nested-too-deeply": ("{% for a in b %}" * 30 + "{% endfor %}" * 30, "does not compile"),
    "always-raises": ("{{ raise_exception('not today') }}", "not today"),
    "divides-by-zero": ("{{ 1 / 0 }}", "division by zero"),
    "wrong-index": ("{{ messages[5].content }}", "no element 5"),
    "unknown-name": ("{{ conversation.turns }}", "'conversation' is undefined"),
    "reads-a-file": ("{% include '/etc/passwd' %}", "no loader"),
    "imports-a-file": ("{% import 'os' as os %}", "no loader"),
    "climbs-to-a-class": ("{{ ''.__class__.__mro__ }}", "'__class__' of 'str' object is unsafe"),
    "climbs-through-a-global": ("{{ cycler.__init__.__globals__ }}", "unsafe"),
    "climbs-through-a-method": ("{{ messages.append.__self__ }}", "unsafe"),
    "climbs-through-a-filter": (
        "{{ (messages | map(attribute='__class__') | list)[0].mro() }}",
        "'__class__' of 'dict' object is unsafe",
    ),
    "climbs-through-a-format": ("{{ '{0.__class__.mro}'.format('') }}", "unsafe"),
    "climbs-through-a-function": (
        "{{ raise_exception.__globals__['os'] }}",
        "'__globals__' of 'function' object is unsafe",
    ),
    "changes-its-arguments": ("{{ messages.append(1) }}", "'append' of 'list' object is unsafe"),
    "counts-for-ever": (
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "more than 200000 loop iterations and calls",
    ),
    "counts-for-ever-over-a-list": (
        "{% set x = range(9999)|list %}{% for a in x %}{% for b in x %}{% endfor %}{% endfor %}",
        "more than 200000 loop iterations and calls",
    ),
    "calls-for-ever": (
        "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(50) }}",
        "more than 200000 loop iterations and calls",
    ),
    "calls-itself": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion depth"),
    "range-too-long": ("{% for a in range(10 ** 7) %}{% endfor %}", "more than a template needs"),
    "astronomical-power": ("{{ 9 ** 9 ** 9 }}", "more than a template needs"),
    "astronomical-text": ("{{ 'a' * 1000000000000 }}", "more than a template needs"),
    "astronomical-list": ("{{ ([0] * 1000000000000) | length }}", "more than a template needs"),
    "writes-for-ever": (
        "{% for a in range(99999) %}" + "a" * 10_000 + "{% endfor %}",
        "more than 16777216 characters",
    ),
    "invents-text": ("{{ lipsum(n=100000) }}", "'lipsum' is undefined"),
    "doubles-a-text": (
        (
            "{% set n = namespace(x='a') %}{% for _ in range(60) %}{% set n.x = n.x + n.x %}"
            "{% endfor %}{{ n.x }}"
        ),
        "more than a template needs",
    ),
    "doubles-with-a-tilde": (
        (
            "{% set n = namespace(x='a') %}{% for _ in range(60) %}{% set n.x = n.x ~ n.x %}"
            "{% endfor %}{{ n.x }}"
        ),
        "more than a template needs",
    ),
    "doubles-in-a-block": (
        (
            "{% set n = namespace(x='a') %}{% for _ in range(60) %}"
            "{% set y %}{{ n.x }}{{ n.x }}{% endset %}{% set n.x = y %}{% endfor %}{{ n.x }}"
        ),
        "more than a template needs",
    ),
    "writes-plain-text-into-a-block": (
        "{% set x %}{% for a in range(99999) %}" + "a" * 10_000 + "{% endfor %}{% endset %}",
        "more than a template needs",
    ),
    "nests-a-list-in-itself": (
        (
            "{% set n = namespace(x=[1]) %}{% for _ in range(60) %}"
            "{% set n.x = [n.x, n.x, n.x, n.x] %}{% endfor %}{{ n.x }}"
        ),
        "more than a template needs",
    ),
    "nests-a-list-and-writes-json": (
        (
            "{% set n = namespace(x=[1]) %}{% for _ in range(60) %}"
            "{% set n.x = [n.x, n.x, n.x, n.x] %}{% endfor %}{{ n.x | tojson }}"
        ),
        "more than a template needs",
    ),
    "pads-by-percent": ("{{ '%1000000000d' % 1 }}", "more than a template needs"),
    "pads-by-an-argument": ("{{ '%*d' % (1000000000, 1) }}", "takes its width from an argument"),
    "pads-by-the-filter": ("{{ '%1000000000d' | format(1) }}", "more than a template needs"),
    "pads-by-braces": ("{{ '{:1000000000}'.format(1) }}", "more than a template needs"),
    "pads-by-nested-braces": (
        "{{ '{:{}}'.format(1, 1000000000) }}",
        "takes its width from an argument",
    ),
    "pads-by-a-method": ("{{ 'a'.ljust(1000000000) }}", "'ljust' of 'str' object is unsafe"),
    "centres": ("{{ 'a' | center(1000000000) }}", "No filter named 'center'"),
    "indents": ("{{ 'a' | indent(1000000000, first=true) }}", "more than a template needs"),
    "indents-json": ("{{ messages | tojson(indent=1000000000) }}", "an indent of 1000000000"),
    "joins": ("{{ range(99999) | join('a' * 100000) }}", "more than a template needs"),
    "joins-by-the-method": (
        "{{ ('a' * 100000).join(range(99999) | map('string')) }}",
        "more than a template needs",
    ),
    "replaces": ("{{ ('a' * 100000).replace('a', 'b' * 100000) }}", "more than a template needs"),
    "replaces-by-the-filter": (
        "{{ ('a' * 100000) | replace('a', 'b' * 100000) }}",
        "more than a template needs",
    ),
    "rounds": ("{{ 1.5 | round(1000000000, 'ceil') }}", "more than a template needs"),
    "sums-lists": ("{{ ([[0] * 10] * 10) | sum(start=[]) }}", "a start of type list"),
    "sorts-one-long-text": (
        "{{ (['a' * 10000000] * 1000) | sort | first }}",
        "more than a template needs",
    ),
    "a-long-source": ("{# " + "a" * 300_000 + " #}", "expected at most 262144"),
}


@pytest.mark.parametrize("case", _NEVER_WORKS)
def test_chat_templates_that_never_work_are_refused_at_load(tmp_path: Path, case: str) -> None:
    """A template that fails, escapes or does not end on a plain chat stops the bundle."""
    source, word = _NEVER_WORKS[case]
    with within(20):
        refused(_chat_bundle(tmp_path, source), "chat template", word)


def test_a_template_has_little_processor_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step is cheap to count and slow to run: searches of a long text."""
    monkeypatch.setattr("layerguard.runtime.text.rendering_budget.MAX_SECONDS", 0.2)
    source = "{% set x = 'a' * 16000000 %}{% for a in range(99999) %}{{ 'b' in x }}{% endfor %}"
    render = compile_chat(source)
    with within(20), pytest.raises(TemplateError, match=r"more than 0\.2 s of processor time"):
        render()


def test_a_chat_template_that_is_not_text_is_refused(tmp_path: Path) -> None:
    """A template that is not UTF-8 is named."""
    bundle = _chat_bundle(tmp_path, _PLAIN)
    refused(put(bundle, "chat_template.jinja", b"{{ '\xff' }}"), "chat_template.jinja", "0xff")


def test_special_tokens_that_hide_an_argument_are_refused(tmp_path: Path) -> None:
    """The manifest cannot pass off its own messages as the caller's."""
    bundle = _chat_bundle(tmp_path, _PLAIN)
    path = bundle / "manifest.json"
    path.write_text(path.read_text().replace('"eos_token"', '"messages"'))
    refused(bundle, "chat template", "multiple values for keyword argument 'messages'")


def test_a_template_may_refuse_one_chat_and_take_the_next(tmp_path: Path) -> None:
    """What a template refuses is the caller's error, in the template's own words."""
    source = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system turns') }}{% endif %}"
        + _PLAIN
    )
    guard = Guard.load(_chat_bundle(tmp_path, source), threads=1)
    with pytest.raises(InputError, match=r"no system turns.*expected turns"):
        guard.check(messages=[{"role": "system", "content": "a"}, _USER])
    assert guard.check(messages=[_USER]).status == "ok"
