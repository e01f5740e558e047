"""Cleaning of content for SIREN: the published rule, by example."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerguard.runtime.text import request as request_module
from layerguard.runtime.text.cuts import cut_apart
from layerguard.runtime.text.request import Request, clean

_MARKERS = (
    "<|im_start|>", "<|im_end|>", "<|im_sep|>", "<|system|>", "<|user|>", "<|assistant|>",
    "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
    "<|eot_id|>", "<|endoftext|>", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>",
    "<<SYS>>", "<</SYS>>", "[INST]", "[/INST]", "<s>", "</s>", "<|s|>", "<|/s|>",
)  # fmt: skip

_EXAMPLES = [
    ("", " "),
    (" ", " "),
    (" \t\n ", " "),
    ("a", "a"),
    ("  a  ", "a"),
    ("a  b", "a b"),
    ("a\tb", "a b"),
    ("a \t \t b", "a b"),
    ("a\nb", "a\nb"),
    ("a\n\nb", "a\n\nb"),
    ("a\n\n\nb", "a\n\nb"),
    ("a\n\n\n\n\n\nb", "a\n\nb"),
    ("a \n b", "a \n b"),
    ("a\n \n\nb", "a\n \n\nb"),
    ("\n\n\na", "a"),
    ("a\r\nb", "a\r\nb"),
    ("a\u00a0\u00a0b", "a\u00a0\u00a0b"),
    ("<|im_start|>user\nhello<|im_end|>", "user\nhello"),
    ("<s>[INST] <<SYS>>\nbe kind\n<</SYS>>\n\nhello [/INST]", "be kind\n \n\nhello"),
    ("<|im_start|><|im_end|>", " "),
    ("a<s>b", "a b"),
    ("a <s> b", "a b"),
    ("<S>a</S>", "<S>a</S>"),
    ("<|im_st<|im_end|>art|>", "<|im_st art|>"),
    ("<|unknown|>", "<|unknown|>"),
    ("[inst]", "[inst]"),
]


@pytest.mark.parametrize(("text", "expected"), _EXAMPLES, ids=ascii)
def test_examples(text: str, expected: str) -> None:
    """Markers become a space, blanks one blank, empty lines at most one, ends are stripped."""
    assert clean(text) == expected


@pytest.mark.parametrize("marker", _MARKERS)
def test_every_published_marker_goes(marker: str) -> None:
    """Each published marker is replaced by one space."""
    assert clean(f"a{marker}b") == "a b"


@given(st.text(alphabet="a \t\n<|s>[]"), st.integers(1, 5))
def test_a_long_text_is_cleaned_in_parts_as_a_whole(text: str, size: int) -> None:
    """At every cut: no marker and no run of blanks or line ends crosses one."""
    parts = "".join(map(request_module._tidy, cut_apart(text, size)))
    assert parts == request_module._tidy(text)


_PIECES = (*_MARKERS, *"a <>[]\n\t", "\u00a0", "<|im_", "<<SYS>")


@given(st.lists(st.sampled_from(_PIECES)).map("".join), st.integers(1, 4))
def test_the_parts_of_each_step_are_cleaned_as_the_published_patterns_clean(
    text: str, size: int
) -> None:
    """Also where a text without cuts is taken apart for one step, and otherwise for the next."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request_module, "_PART", size)
        found = request_module.tidy(text)
    markers = "|".join(map(re.escape, _MARKERS))
    blanks = re.sub(r"[ \t]+", " ", re.sub(markers, " ", text))
    assert found == re.sub(r"\n{3,}", "\n\n", blanks)


@given(st.text(alphabet="ab <|>/[]ISNTsy\n\t") | st.lists(st.sampled_from(_MARKERS)).map("".join))
def test_no_marker_survives_and_nothing_is_left_empty(text: str) -> None:
    """Cleaned text holds no marker, no double blank, no third newline, and is never empty."""
    found = clean(text)
    assert found
    assert not any(marker in found for marker in _MARKERS)
    assert not re.search(r"[ \t]{2}|\t|\n{3}", found)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (Request("a", "b"), "a\nb"),
        (Request("", "b"), "b"),
        (Request("a", ""), "a"),
        (Request("", ""), " "),
        (Request(" a ", "\n b"), "a \n\n b"),
        (Request("a\n", "\nb"), "a\n\nb"),
        (
            Request(
                "a", messages=({"role": "user", "content": "a"}, {"role": "tool", "content": ""})
            ),
            "a",
        ),
        (
            Request("", messages=({"role": "user", "content": [{"text": "a"}, {"text": "b"}]},)),
            "a\nb",
        ),
    ],
)
def test_parts_are_joined_before_they_are_cleaned(request_: Request, expected: str) -> None:
    """Prompt and response are joined by a newline first, empty parts skipped, then cleaned."""
    assert request_.content() == expected
