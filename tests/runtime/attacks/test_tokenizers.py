"""Tokenizers that are none, that fail when they are asked, or that leave no room for a text."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layerguard.runtime import BundleError, Guard
from tests.runtime.tamper import edit_manifest, put, refused

_BYTES = {
    "empty": b"",
    "words": b"this is no tokenizer",
    "half": b'{"version": "1.0", "truncation": null',
    "null": b"null",
    "list": b"[]",
    "object": b"{}",
    "without-a-model": b'{"version": "1.0", "added_tokens": []}',
    "unknown-model": b'{"version": "1.0", "added_tokens": [], "model": {"type": "Oracle"}}',
    "not-utf-8": b'{"version": "\xff"}',
    "deep": b'{"model":' * 10_000 + b"1" + b"}" * 10_000,
}


@pytest.mark.parametrize("case", _BYTES)
def test_what_is_no_tokenizer_is_refused(bundle: Path, case: str) -> None:
    """Bytes that are no tokenizer are refused by the file's name."""
    put(bundle, "tokenizer.json", _BYTES[case])
    refused(bundle, "tokenizer.json is not a tokenizer", "export the model again")


def _single(value: Any) -> Any:
    return value["post_processor"]["single"]


def _special_tokens(value: Any) -> None:
    value["post_processor"]["special_tokens"] = {}


def _many_frames(value: Any) -> None:
    value["post_processor"]["single"] = [_single(value)[0]] * 20 + _single(value)


_EDITS: dict[str, tuple[Callable[[Any], Any], tuple[str, ...]]] = {
    "panics": (_special_tokens, ("fails on a text",)),
    "frame-fills-the-window": (_many_frames, ("22 special tokens", "text.max_tokens, 12")),
    "unknown-pre-tokenizer": (
        lambda value: value.update(pre_tokenizer={"type": "Oracle"}),
        ("is not a tokenizer",),
    ),
    "vocabulary-of-texts": (
        lambda value: value["model"].update(vocab={"a": "b"}),
        ("is not a tokenizer",),
    ),
    "negative-ids": (
        lambda value: value["model"]["vocab"].update(a=-1),
        ("is not a tokenizer",),
    ),
    "no-such-unknown-token": (
        lambda value: (value["model"].update(unk_token="[NONE]"), value["model"]["vocab"].pop("a")),
        ("fails on a text", "WordLevel"),
    ),
}


def _edited(bundle: Path, change: Callable[[Any], Any]) -> Path:
    value = json.loads((bundle / "tokenizer.json").read_bytes())
    change(value)
    return put(bundle, "tokenizer.json", json.dumps(value))


@pytest.mark.parametrize("case", _EDITS)
def test_tokenizers_that_cannot_work_are_refused(bundle: Path, case: str) -> None:
    """A tokenizer that would fail on every text, even by a panic in Rust, fails at load."""
    change, words = _EDITS[case]
    refused(_edited(bundle, change), "tokenizer.json", *words)


def test_a_tokenizer_that_fails_on_one_word_says_so(bundle: Path) -> None:
    """What fails later than at load is an error of the bundle too, and the guard lives on."""

    def forget_unknown(value: Any) -> None:
        value["model"].update(unk_token="[NONE]")

    guard = Guard.load(_edited(bundle, forget_unknown), threads=1)
    with pytest.raises(BundleError, match=r"tokenizer.json fails on a text"):
        guard.check("garden zebra")
    assert guard.check("the garden").status == "ok"


def test_a_window_smaller_than_the_frame_is_refused(bundle: Path) -> None:
    """Windows and frame are checked against each other whichever of the two was changed."""
    edit_manifest(bundle, lambda value: value["text"].update(max_tokens=8))

    def frame_of_eight(value: Any) -> None:
        value["post_processor"]["single"] = [_single(value)[0]] * 6 + _single(value)

    refused(_edited(bundle, frame_of_eight), "8 special tokens", "text.max_tokens, 8")
