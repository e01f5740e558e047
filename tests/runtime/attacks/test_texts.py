"""Texts that are empty, endless, no text at all, or look like something else."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from layerguard.runtime import Bundle, Guard, InputError
from layerguard.runtime.text.request import Request, request
from layerguard.runtime.text.template import Template
from layerguard.runtime.text.tokens import TokenReader
from tests.tiny import WORDS, make_bundle

_NOTHING = {"nothing": "", "space": " ", "blanks": " \t \n\r\n ", "marker": "<|im_start|>"}


@pytest.mark.parametrize("case", _NOTHING)
def test_no_text_is_judged_as_one_space(guard: Guard, case: str) -> None:
    """Empty and blank texts get a verdict, that on a single space; a lone marker is blank."""
    verdict = guard.check(_NOTHING[case])
    assert verdict.status == "ok"
    if case != "marker":  # which the prompt view keeps, as text
        assert verdict.readings == guard.check(" ").readings
    assert verdict.readings["siren"] == guard.check(" ").readings["siren"]


def test_an_empty_prompt_with_a_response_is_judged_on_the_response(guard: Guard) -> None:
    """Empty parts are skipped in the content."""
    both = guard.check(prompt="", response="the garden")
    assert both.readings["siren"] == guard.check("the garden").readings["siren"]


@pytest.mark.parametrize("windows", ["head-tail", "sliding"])
@pytest.mark.parametrize("words", [10, 11, 10_000, 100_000])
def test_long_texts_are_read_in_windows(tmp_path: Path, windows: Any, words: int) -> None:
    """Ten words fill the window; whatever is longer says how long it was, and what was left out."""
    guard = Guard.load(make_bundle(tmp_path / "bundle", windows=windows), threads=1)
    verdict = guard.check("garden " * words)
    assert verdict.tokens == words + 2
    assert verdict.truncated == (words > (10 if windows == "head-tail" else 10 + 3 * 8))


@pytest.mark.parametrize(
    "text",
    ["\0", "the\0garden", "\0" * 1000, "\x1b[2J", "\ufeffthe", "\u202ethe", "🧨" * 100, "e\u0301"],
    ids=ascii,
)
def test_strange_characters_are_text(guard: Guard, text: str) -> None:
    """Any character that Unicode knows is read, NUL too."""
    assert guard.check(text).status == "ok"


_NO_TEXT: dict[str, tuple[Any, str]] = {
    "bytes": (b"the garden", "found bytes"),
    "number": (7, "found int"),
    "list": (["the garden"], "found list"),
    "object": ({"text": "the garden"}, "found dict"),
    "high-surrogate": ("the \ud800 garden", "'\\ud800', a lone surrogate, at character 4"),
    "low-surrogate": ("\udfff", "'\\udfff', a lone surrogate, at character 0"),
    "undecodable-byte": (b"\xff".decode("utf-8", "surrogateescape"), "'\\udcff'"),
}


@pytest.mark.parametrize("argument", ["text", "prompt", "response"])
@pytest.mark.parametrize("case", _NO_TEXT)
def test_what_is_no_text_is_named(guard: Guard, argument: str, case: str) -> None:
    """What is not Unicode text is refused with the argument's name and what was found."""
    value, word = _NO_TEXT[case]
    arguments = {argument: value} | ({"prompt": "the"} if argument == "response" else {})
    with pytest.raises(InputError, match=f"^{argument}: found") as caught:
        guard.check(**arguments)
    assert word in str(caught.value)


_CALLS: dict[str, tuple[Mapping[str, Any], str]] = {
    "nothing": ({}, "found nothing; expected exactly one"),
    "only-a-response": ({"response": "a"}, "found only response; expected exactly one"),
    "only-tools": ({"tools": []}, "found only tools; expected exactly one"),
    "text-and-prompt": ({"text": "a", "prompt": "b"}, "found text and prompt"),
    "all-three": ({"text": "a", "prompt": "b", "messages": []}, "text and prompt and messages"),
    "text-and-response": ({"text": "a", "response": "b"}, "response goes with prompt"),
    "messages-and-response": (
        {"messages": [{"role": "user", "content": "a"}], "response": "b"},
        "response goes with prompt",
    ),
    "prompt-and-tools": ({"prompt": "a", "tools": [{}]}, "tools goes with messages"),
    "text-and-tools": ({"text": "a", "tools": []}, "tools goes with messages"),
}


@pytest.mark.parametrize("case", _CALLS)
def test_calls_that_say_two_things_are_refused(guard: Guard, case: str) -> None:
    """Exactly one of text, prompt and messages is given; nothing is dropped in silence."""
    arguments, word = _CALLS[case]
    with pytest.raises(InputError, match=word):
        guard.check(**arguments)


_BATCHES: dict[str, tuple[Any, str]] = {
    "one-text": ("the garden", "texts: found one str"),
    "one-object": ({"text": "the garden"}, "texts: found one dict"),
    "one-bytes": (b"the", "texts: found one bytes"),
    "second-is-no-text": (["the", 7], "item 1: "),
    "third-is-null": (["the", "the", None], "item 2: "),
    "second-has-an-unknown-key": (
        ["the", {"txt": "a"}],
        "item 1: found the key 'txt'; expected only text, prompt",
    ),
    "second-is-half-a-pair": (["the", "\ud800"], "item 1: text: found"),
    "second-says-two-things": (["the", {"text": "a", "prompt": "b"}], "item 1: found text and"),
}


@pytest.mark.parametrize("case", _BATCHES)
def test_the_wrong_item_of_a_batch_is_named(guard: Guard, case: str) -> None:
    """The message gives the index of the item that is wrong."""
    texts, word = _BATCHES[case]
    with pytest.raises(InputError, match=word):
        guard.check_batch(texts)


def _ids(bundle: Path, view: Any, **arguments: Any) -> list[str]:
    """The tokens of a view, frame and all."""
    (window,) = TokenReader(Bundle.load(bundle)).read(request(**arguments), {view})[view].windows
    return [WORDS[number] for number in window]


@pytest.mark.parametrize("template", ["{prompt}", "a {prompt} [SEP]"])
def test_typed_control_tokens_are_never_special(tmp_path: Path, template: str) -> None:
    """Special tokens come from the frame and the template alone, whatever the text spells."""
    bundle = make_bundle(tmp_path / "bundle", template=template)
    prompt = _ids(bundle, "prompt", text="rain [SEP] now")
    assert prompt[0] == "[CLS]"
    assert prompt[-1] == "[SEP]"
    inside = prompt[1:-1] if template == "{prompt}" else prompt[2:-2]
    assert inside == ["rain", "[UNK]", "[UNK]", "[UNK]", "now"]
    content = _ids(bundle, "content", text="rain <|im_end|> [SEP] now")
    assert content == ["[CLS]", "rain", "[UNK]", "[UNK]", "[UNK]", "now", "[SEP]"]


_MARKS = {
    "another-piece": "\ue0000\ue001 [SEP]",
    "no-piece": "\ue0007\ue001 [SEP]",
    "endless-number": f"\ue000{'9' * 5_000}\ue001 [SEP]",
    "half": "\ue0000 [SEP] \ue001",
    "alone": "\ue000",
    "nested": "\ue000\ue0000\ue001\ue001 [SEP]",
}


@pytest.mark.parametrize("case", _MARKS)
def test_typed_marks_stay_text(case: str) -> None:
    """The marks that stand in for typed control tokens cannot be forged by a text."""
    template = Template("a {prompt} now", None, {}, ["[SEP]"])
    pieces = template.render(Request(_MARKS[case]))
    assert "".join(text for text, _ in pieces) == f"a {_MARKS[case]} now"
    assert not any("[SEP]" in text for text, active in pieces if active)
