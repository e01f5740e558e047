"""Every string of a request is read by a detector, or the verdict names it as unread."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerguard.runtime import Bundle, Guard, InputError, Verdict
from layerguard.runtime.cli import main
from layerguard.runtime.text.request import request
from layerguard.runtime.text.tokens import TokenReader
from layerguard.runtime.types import View
from tests.runtime.tamper import edit_manifest
from tests.tiny import WORDS, make_bundle, make_params

_CHAT = (
    "{% for m in messages %}{{ m.role }} {{ m.content }} {% for c in m.tool_calls or [] %}"
    "{{ c.function | tojson }}{% endfor %}{% endfor %}"
)
"""Writes the text and the calls of a turn, and neither names nor documents."""

_WORD = "previous"
_IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
_DOCUMENT = {"type": "document", "source": {"type": "text", "data": _WORD}}


def _bundle(folder: Path, *names: str, **rules: Any) -> Path:
    """A bundle of some detectors, with a chat template and a large window."""
    params = {name: value for name, value in make_params().items() if name in names}
    bundle = make_bundle(folder / "bundle", params, template="chat", chat_template=_CHAT)
    return edit_manifest(bundle, lambda value: value["text"].update(max_tokens=2_000, **rules))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose detectors read the prompt and the content."""
    return _bundle(tmp_path_factory.mktemp("both"), "lcf", "siren")


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose detector reads the prompt alone."""
    return _bundle(tmp_path_factory.mktemp("prompts"), "lcf")


_READ: dict[str, Any] = {
    "a document": {"content": [_DOCUMENT]},
    "a document's words": {"content": [{"type": "document", "text": _WORD}]},
    "a document in a list": {"content": [{"type": "x", "content": [[{"text": _WORD}]]}]},
    "a tool's result": {"content": [{"type": "tool_result", "content": _WORD}]},
    "a tool's result in parts": {
        "content": [{"type": "tool_result", "content": [{"type": "text", "text": _WORD}]}]
    },
    "a refusal": {"role": "assistant", "content": [{"type": "refusal", "refusal": _WORD}]},
    "a refusal beside the content": {"role": "assistant", "refusal": _WORD},
    "reasoning": {"role": "assistant", "content": "a", "reasoning_content": _WORD},
    "arguments": {"role": "assistant", "tool_calls": [{"function": {"arguments": {"q": _WORD}}}]},
    "a key of arguments": {"tool_calls": [{"function": {"arguments": {_WORD: 1}}}]},
    "arguments as JSON": {"tool_calls": [{"function": {"arguments": json.dumps({"q": _WORD})}}]},
    "arguments in numbers": {
        "tool_calls": [{"function": {"arguments": '{"q": "pre\\u0076ious"}'}}]
    },
    "arguments that are no JSON": {"tool_calls": [{"function": {"arguments": f"{{{_WORD}"}}]},
    "an old call": {"function_call": {"name": "a", "arguments": _WORD}},
    "a call's input": {"content": [{"type": "tool_use", "name": "a", "input": {"q": [_WORD]}}]},
    "a name": {"content": "a", "name": _WORD},
    "a call's name": {"tool_calls": [{"function": {"name": _WORD, "arguments": "{}"}}]},
    "the id of a call": {"role": "tool", "content": "a", "tool_call_id": _WORD},
    "an unknown key": {"content": "a", "extra": {"deep": [{"deeper": _WORD}]}},
    "a key itself": {"content": "a", _WORD: None},
    "a role": {"role": _WORD, "content": "a"},
    "an unknown type": {"content": [{"type": _WORD}]},
    "beside an image": {"content": [{"type": "image", "text": _WORD}]},
    "beside a text": {"content": [{"type": "text", "text": "a", "title": _WORD}]},
}


@pytest.mark.parametrize("case", _READ)
def test_all_text_of_a_turn_is_read(both: Path, case: str) -> None:
    """Its token is among those of the view of plain text."""
    turn = {"role": "user", **_READ[case]}
    reader = TokenReader(Bundle.load(both))
    windows = reader.read(request(messages=[turn]), {"content"})["content"].windows
    assert WORDS.index(_WORD) in {token for window in windows for token in window}


def test_tools_are_read(both: Path) -> None:
    """Names, descriptions and parameters of tools may carry an injection."""
    tool = {"function": {"name": "a", "parameters": {"properties": {"b": {"title": _WORD}}}}}
    reader = TokenReader(Bundle.load(both))
    one = request(messages=[{"role": "user", "content": "a"}], tools=[tool])
    windows = reader.read(one, {"content"})["content"].windows
    assert WORDS.index(_WORD) in windows[1]


_UNREAD: dict[str, tuple[Any, str]] = {
    "an image": ([{"type": "text", "text": "a"}, _IMAGE], ".content[1]"),
    "an image with text": ([{"type": "image", "text": "a"}], ".content[0]"),
    "an image without a type": ([{"image": "x"}], ".content[0]"),
    "an image in a text part": ([{"type": "text", "text": "a", "image": "x"}], ".content[0]"),
    "audio": ([{"type": "input_audio", "input_audio": {"data": "UklG"}}], ".content[0]"),
    "a file": ([{"type": "file", "file": {"file_id": "file-1"}}], ".content[0]"),
    "a document elsewhere": (
        [{"type": "document", "source": {"type": "url", "url": "https://example.org"}}],
        ".content[0]",
    ),
    "an encoded document": (
        [{"type": "document", "source": {"type": "base64", "data": "JVBERi0xLjcK"}}],
        ".content[0]",
    ),
    "an image in a tool's result": (
        [{"type": "tool_result", "content": [{"type": "text", "text": "a"}, _IMAGE]}],
        ".content[0].content[1]",
    ),
    "a long code": ([{"type": "reasoning", "encrypted": "QUJD" * 200}], ".content[0]"),
    "data in a URL": ([{"type": "x", "y": "data:image/png;base64,iVBO"}], ".content[0]"),
    "bytes": ([{"type": "x", "y": b"abc"}], ".content[0]"),
}


@pytest.mark.parametrize("case", _UNREAD)
def test_what_is_not_text_is_named(both: Path, case: str) -> None:
    """The path of the part; the request is flagged."""
    content, path = _UNREAD[case]
    guard = Guard.load(both, threads=1)
    turns = [{"role": "user", "content": "the garden"}, {"role": "user", "content": content}]
    verdict = guard.check(messages=turns)
    assert verdict.unread == (f"messages[1]{path}",)
    assert verdict.flagged
    assert verdict.status == "unread"
    assert f"no detector can read messages[1]{path}" in verdict.reason
    assert json.loads(json.dumps(verdict.to_json()))["unread"] == [f"messages[1]{path}"]


def test_a_voice_of_a_turn_and_a_code_in_arguments_are_named(both: Path) -> None:
    """They are not in a part of a content."""
    turn = {
        "role": "assistant",
        "audio": {"id": "audio_1"},
        "tool_calls": [{"function": {"name": "a", "arguments": {"file": "QUJD" * 200}}}],
    }
    verdict = Guard.load(both, threads=1).check(messages=[turn])
    arguments = "messages[0].tool_calls[0].function.arguments.file"
    assert verdict.unread == ("messages[0].audio", arguments)


_ASKED = [{"role": "user", "content": [{"type": "text", "text": "the garden"}, _IMAGE]}]


def _verdict(bundle: Path, policy: Any) -> Verdict:
    return Guard.load(bundle, threads=1, on_unread=policy).check(messages=_ASKED)


def test_the_operator_decides_about_unread_parts(both: Path) -> None:
    """They are flagged by default; the verdict always names them, unless it is refused."""
    assert _verdict(both, None).flagged
    allowed = _verdict(both, "allow")
    assert (allowed.flagged, allowed.status, allowed.unread) == (
        False,
        "unread",
        ("messages[0].content[1]",),
    )
    with pytest.raises(InputError, match=r"found messages\[0\]\.content\[1\], which no detector"):
        _verdict(both, "refuse")
    with pytest.raises(InputError, match="on_unread: found 'ask'; expected flag, allow or refuse"):
        _verdict(both, "ask")


def test_a_bundle_may_carry_the_policy(tmp_path: Path) -> None:
    """``Guard.load`` overrides it."""
    bundle = _bundle(tmp_path, "siren", on_unread="allow")
    assert not _verdict(bundle, None).flagged
    assert _verdict(bundle, "flag").flagged


def test_a_stream_and_a_generation_name_unread_parts(both: Path) -> None:
    """A stream's verdict is that of a check; a request that is refused opens no stream."""
    with Guard.load(both, threads=1).stream(messages=_ASKED) as stream:
        assert stream.push("rain").unread == ("messages[0].content[1]",)
    strict = Guard.load(both, threads=1, on_unread="refuse")
    with pytest.raises(InputError, match="which no detector"):
        strict.stream(messages=_ASKED)


def test_the_command_line_prints_unread_parts(
    both: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a line of their own, and in the reason."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"messages": _ASKED}))
    assert main(["score", str(both), "--input", str(rows)]) == 1
    assert "unread: messages[0].content[1]" in capsys.readouterr().out


def test_what_a_template_drops_is_unread_without_a_reader_of_content(prompts: Path) -> None:
    """This template writes texts and calls, and neither names nor documents."""
    guard = Guard.load(prompts, threads=1)
    call = {"function": {"name": "river", "arguments": {"q": 'say "now"\n'}}}
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "the garden"}, _DOCUMENT]},
        {"role": "assistant", "content": "", "tool_calls": [call], "name": "boats"},
        {"role": "user", "content": "rain"},
        {"role": "assistant", "content": "an answer, which prompt detectors never read"},
    ]
    verdict = guard.check(messages=turns)
    assert verdict.unread == ("messages[0].content[1].source.data", "messages[1].name")
    assert guard.check(prompt="the garden", response="now").unread == ()


def test_attached_text_has_windows_of_its_own(both: Path) -> None:
    """The score of a plain text stays what it is, and the worst window counts."""
    guard = Guard.load(both, threads=1)
    plain = {"role": "user", "content": "the garden was quiet"}
    attached = {**plain, "content": [{"type": "text", "text": plain["content"]}, _DOCUMENT]}
    alone = guard.check(messages=[plain]).readings["siren"].score
    document = guard.check(messages=[{"role": "user", "content": _WORD}]).readings["siren"].score
    both_read = guard.check(messages=[attached]).readings["siren"].score
    assert both_read == pytest.approx(max(alone, document), rel=1e-6)


_EARLIER = (
    {"role": "system", "content": "the garden"},
    {"role": "user", "content": "the garden was quiet"},
    {"role": "assistant", "content": "small boats"},
)
_ANSWER = _EARLIER[2]


@pytest.mark.parametrize("answer", [(), (_ANSWER,)], ids=["open", "answered"])
@pytest.mark.parametrize("word", WORDS[:6])
def test_the_newest_turns_have_a_window_of_their_own(
    tmp_path: Path, both: Path, word: str, answer: tuple[Any, ...]
) -> None:
    """Earlier turns do not dilute them; earlier bundles keep their scores."""
    earlier = Guard.load(_bundle(tmp_path, "lcf", "siren", rules_version=2), threads=1)
    guard = Guard.load(both, threads=1)

    def score(guard: Guard, *turns: Any) -> float:
        return guard.check(messages=turns).readings["siren"].score

    newest = {"role": "user", "content": word}
    chat = (*_EARLIER, newest, *answer)
    worst = max(score(earlier, *chat), score(earlier, newest))
    assert score(guard, *chat) == pytest.approx(worst, rel=1e-6)


@pytest.mark.parametrize(
    ("roles", "newest"),
    [
        (("user",), None),
        (("user", "user"), None),
        (("user", "assistant"), None),
        (("system", "user"), "1"),
        (("system", "user", "assistant"), "1"),
        (("user", "assistant", "tool", "tool"), "2\n3"),
        (("user", "assistant", "user", "assistant", "assistant"), "2"),
    ],
)
def test_the_newest_turns_are_the_last_of_one_role_before_the_answer(
    roles: tuple[str, ...], newest: str | None
) -> None:
    """If there are earlier ones."""
    turns = [{"role": role, "content": f"{i}"} for i, role in enumerate(roles)]
    whole = "\n".join(f"{i}" for i in range(len(roles)))
    expected = (whole,) if newest is None else (whole, newest)
    assert request(messages=turns).contents(newest=True) == expected
    assert request(messages=turns).contents() == (whole,)


_SAID = st.text("abcdefgh", min_size=6, max_size=9)
_VALUE = st.recursive(
    _SAID | st.integers() | st.none() | st.booleans(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(_SAID | st.sampled_from(["text", "url", "name"]), inner, max_size=3)
    ),
    max_leaves=6,
)
_PART = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(
            ["text", "input_text", "document", "tool_result", "image_url", "refusal", "file", "odd"]
        )
        | _SAID,
        "text": _SAID,
        "content": _VALUE,
        "source": st.fixed_dictionaries({"type": st.just("text"), "data": _SAID}),
        "image_url": _VALUE,
        "refusal": _SAID,
    },
)
_CALL = st.fixed_dictionaries(
    {
        "function": st.fixed_dictionaries(
            {"name": _SAID, "arguments": _VALUE | _VALUE.map(json.dumps)}
        )
    }
)
_TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool"]) | _SAID},
    optional={
        "content": _SAID | st.lists(_PART, max_size=3) | st.none(),
        "name": _SAID,
        "tool_call_id": _SAID,
        "reasoning_content": _SAID,
        "tool_calls": st.lists(_CALL, max_size=2),
        "extra": _VALUE,
    },
)
_CHATS = st.tuples(st.lists(_TURN, min_size=1, max_size=4), st.none() | st.lists(_CALL, max_size=2))


def _strings(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """Every string value and its path, found in another way than the guard's."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _strings(f"{path}.{key}", item)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _strings(f"{path}[{i}]", item)


def _replaced(value: Any, old: str, new: str) -> Any:
    """The value with one string in place of another."""
    if isinstance(value, dict):
        return {key: _replaced(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, old, new) for item in value]
    return new if value == old else value


class _Spelling(TokenReader):
    """A reader that gives the text of each view instead of its tokens."""

    def texts(self, chat: Any, views: set[View]) -> list[str]:
        one = request(messages=chat[0], tools=chat[1])
        content = list(one.contents()) if "content" in views else []
        return [*content, self._written(one, views - {"content"})]


_VIEWS: list[set[View]] = [{"content"}, {"prompt"}, {"prompt", "content"}, {"conversation"}]


@pytest.mark.parametrize("views", _VIEWS, ids=lambda views: "+".join(sorted(views)))
@settings(max_examples=60)
@given(chat=_CHATS)
def test_every_string_is_read_or_named(both: Path, views: set[View], chat: Any) -> None:
    """A string that is replaced by another changes what is read, or is in a part that is unread."""
    reader = _READERS.setdefault("one", _Spelling(Bundle.load(both)))
    try:
        before = reader.texts(chat, views)
    except InputError:
        return  # refused is not silent
    unread = reader.unread(request(messages=chat[0], tools=chat[1]), views)
    for name, items in zip(("messages", "tools"), chat, strict=True):
        for i, item in enumerate(items or ()):
            if views == {"prompt"} and _is_answer(chat[0], i, name):
                continue
            for path, text in _strings(f"{name}[{i}]", item):
                if any(path.startswith(listed) for listed in unread) or _is_word(path, text):
                    continue
                if _times(text.strip('"'), chat) > 1:
                    continue  # what is read elsewhere is read
                changed = tuple(_replaced(part, text, "zzzzzzz") for part in chat)
                assert reader.texts(changed, views) != before, (path, unread)


_READERS: dict[str, _Spelling] = {}


def _times(text: str, chat: Any) -> int:
    """How often a text is in a chat, as the text of a string or as JSON that a template writes."""
    spelled = json.dumps(chat)
    return sum(spelled.count(form) for form in {text, json.dumps(text)[1:-1]})


def _is_answer(messages: list[Any], place: int, name: str) -> bool:
    return name == "messages" and place >= len(request(messages=messages).prompt_turns)


def _is_word(path: str, text: str) -> bool:
    """Types and roles are words of the interface; they choose what is read."""
    return path.endswith((".type", ".role")) and text in _INTERFACE


_INTERFACE = (
    "system", "user", "assistant", "tool", "text", "input_text", "document", "file", "tool_result",
    "image_url", "refusal",
)  # fmt: skip
