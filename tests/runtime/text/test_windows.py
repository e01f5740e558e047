"""Windows: how a text that exceeds the window is split."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerguard.runtime import Bundle
from layerguard.runtime.errors import InputError
from layerguard.runtime.limits import Limits
from layerguard.runtime.text.request import request
from layerguard.runtime.text.tokens import TokenReader, Windows
from layerguard.runtime.types import TokenBudget, TokenSource, View
from tests.runtime.tamper import edit_manifest
from tests.tiny import WORDS, make_bundle

_BEFORE, _AFTER = (WORDS.index("[CLS]"),), (WORDS.index("[SEP]"),)
_ORDINARY = range(5, len(WORDS))
_TEXTS = st.lists(st.sampled_from(_ORDINARY), max_size=80)
_RULES = [("head-tail", 12, 4), ("head-tail", 9, 1), ("sliding", 12, 4), ("sliding", 11, 100)]


@pytest.fixture(scope="module", params=_RULES, ids=str)
def rules(request: pytest.FixtureRequest) -> Any:
    """Random window rules: kind, tokens per window, most windows."""
    return request.param


@pytest.fixture(scope="module")
def reader(rules: Any, tmp_path_factory: pytest.TempPathFactory) -> TokenReader:
    """A reader with these window rules."""
    return _reader(tmp_path_factory.mktemp("windows"), *rules)


def _reader(folder: Path, windows: Any, max_tokens: int, max_windows: int) -> TokenReader:
    bundle = make_bundle(folder / "bundle", windows=windows)
    sizes = {"max_tokens": max_tokens, "max_windows": max_windows}
    return TokenReader(Bundle.load(edit_manifest(bundle, lambda v: v["text"].update(sizes))))


def _read(reader: TokenReader, ids: list[int]) -> Windows:
    text = " ".join(WORDS[number] for number in ids)
    return reader.read(request(text), {"content"})["content"]


@given(ids=_TEXTS)
def test_windows_are_framed_and_never_too_long(
    reader: TokenReader, rules: Any, ids: list[int]
) -> None:
    """Each window has the special tokens and at most ``max_tokens`` tokens."""
    found = _read(reader, ids)
    assert 1 <= len(found.windows) <= rules[2]
    assert found.tokens == len(ids) + 2
    for window in found.windows:
        assert len(window) <= rules[1]
        assert window[:1] == _BEFORE
        assert window[-1:] == _AFTER


@given(ids=_TEXTS)
def test_what_fits_is_read_whole(reader: TokenReader, rules: Any, ids: list[int]) -> None:
    """A text within the window is one window, untruncated, token for token."""
    ids = ids[: rules[1] - 2]
    expected = Windows(((*_BEFORE, *ids, *_AFTER),), tokens=len(ids) + 2, truncated=False)
    assert _read(reader, ids) == expected


@given(ids=st.lists(st.sampled_from(_ORDINARY), min_size=11, max_size=80))
def test_cut_texts_keep_what_their_rule_promises(
    reader: TokenReader, rules: Any, ids: list[int]
) -> None:
    """Head-tail keeps the first and last tokens; sliding covers all, in order, or says it did not.

    Sliding windows overlap by a fourth.
    """
    found = _read(reader, ids)
    parts = [list(window[1:-1]) for window in found.windows]
    room = rules[1] - 2
    if rules[0] == "head-tail":
        assert found.truncated
        assert parts == [ids[: room // 2] + ids[-(room - room // 2) :]]
        return
    step = room - room // 4
    assert all(part == ids[i * step : i * step + room] for i, part in enumerate(parts))
    covered = (len(parts) - 1) * step + len(parts[-1])
    assert found.truncated == (covered < len(ids))
    assert not found.truncated or len(parts) == rules[2]
    assert found.truncated or covered == len(ids)


def test_no_window_holds_only_what_another_does(tmp_path: Path) -> None:
    """Each sliding window has a token that the earlier windows lack."""
    reader = _reader(tmp_path, "sliding", 12, 100)
    for count in range(11, 60):
        parts = [window[1:-1] for window in _read(reader, [5] * count).windows]
        assert (len(parts) - 2) * 8 + 10 < count


@pytest.mark.parametrize(("most", "windows"), [(8, 3), (10, 2), (12, 2)])
def test_a_detector_may_slide_over_shorter_windows(tmp_path: Path, most: int, windows: int) -> None:
    """As many as hold the tokens that the bundle's own rule reads, here two windows of 12."""
    reader, budget = _reader(tmp_path, "head-tail", 12, 2), TokenBudget("sliding", most)
    for count in range(1, 40):
        ids = [5 + number % 7 for number in range(count)]
        text = " ".join(WORDS[number] for number in ids)
        found = reader.read(request(text), {"content"}, budget)["content"]
        room = most - 2
        step = room - room // 4
        parts = [list(window[1:-1]) for window in found.windows]
        assert parts == [ids[i * step : i * step + room] for i in range(len(parts))]
        assert len(parts) <= windows
        assert found.truncated == ((len(parts) - 1) * step + room < count)
        assert not found.truncated or len(parts) == windows
    assert _read(reader, ids).truncated  # the bundle's own rule is head-tail


@pytest.mark.parametrize("view", ["prompt", "content"])
def test_both_views_are_cut_alike(tmp_path: Path, view: Any) -> None:
    """The window rule belongs to the bundle, not to the view."""
    found = _reader(tmp_path, "head-tail", 8, 1).read(request("the garden " * 9), {view})[view]
    assert found.truncated
    assert found.tokens == 20
    assert len(found.windows[0]) == 8


def test_views_that_read_the_same_are_the_same(tmp_path: Path) -> None:
    """Views with the same text share their windows."""
    found = _reader(tmp_path, "sliding", 12, 4).read(request("the garden"), {"prompt", "content"})
    assert found["prompt"] is found["content"]


def test_a_tokenizer_without_a_frame_reads_at_least_one_token(tmp_path: Path) -> None:
    """An empty text is one padding token."""
    bundle = make_bundle(tmp_path / "bundle", template="chat", chat_template="{{ '' }}")
    reader = TokenReader(Bundle.load(bundle))
    reader._before = ()
    assert reader.read(request("a"), {"prompt"})["prompt"].windows == ((0,),)


@pytest.mark.parametrize("view", ["prompt", "content", "conversation"])
def test_a_long_text_is_tokenized_in_parts(tmp_path: Path, view: View) -> None:
    """Other threads run between the parts; the ids and their places are those of the whole."""
    reader = TokenReader(Bundle.load(make_bundle(tmp_path / "bundle")))
    text = "the garden was quiet before rain came, and " * 2_000
    parts = list(reader._encodings(reader.tokenizer, text))
    whole = reader.tokenizer.encode(text, add_special_tokens=False)
    assert len(parts) == len(text) // (1 << 14) + 1
    assert [number for _, part in parts for number in part.ids] == whole.ids
    assert reader.text_places(text) == tuple(whole.offsets)
    assert reader.read(request(text), {view})[view].tokens >= len(whole.ids)


@pytest.mark.parametrize("view", ["prompt", "conversation"])
def test_a_token_that_is_typed_is_never_one_that_the_template_writes(
    tmp_path: Path, view: View
) -> None:
    """Short pieces are tokenised once, each as what it is."""
    source = "{{ messages[0].content }}<|im_end|>"
    bundle = make_bundle(tmp_path / "bundle", template="chat", chat_template=source)
    reader = TokenReader(Bundle.load(bundle))
    typed, written = reader.literal("<|im_end|>"), WORDS.index("<|im_end|>")
    (window,) = reader.read(request("<|im_end|>" * 2), {view})[view].windows
    assert written not in typed
    assert window[-2 * len(typed) - 1 :] == (*typed, *typed, written)


_WORDS = st.lists(st.sampled_from(WORDS[5:]), max_size=30).map(" ".join)
_TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "tool"]), "content": _WORDS},
    optional={"document": st.fixed_dictionaries({"river": _WORDS})},
)


@given(turns=st.lists(_TURN, min_size=1, max_size=5), characters=st.integers(20, 400))
def test_the_places_of_a_chat_are_those_of_its_windows(
    reader: TokenReader, turns: Any, characters: int
) -> None:
    """In every text of it, also one that was shortened."""
    reader.limits = Limits(characters=characters)
    try:
        chat = request(messages=turns)
        source: TokenSource = ("content", None)
        windows = reader.read_sources(chat, {source})[source].windows
        places = reader.places(chat)
    except InputError:  # it cannot be shortened so far
        return
    assert len(windows) == len(places)
    for ids, (text, of_tokens) in zip(windows, places, strict=True):
        named = [text[first:end] for first, end in of_tokens]
        assert len(ids) == len(named)
        known = [(WORDS[one], name) for one, name in zip(ids, named, strict=True) if name]
        assert all(word in (name, "[UNK]") for word, name in known)
