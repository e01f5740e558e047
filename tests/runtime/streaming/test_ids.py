"""Streams of token ids as the served model emits them."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders

from layerguard.runtime import Guard
from layerguard.runtime.streaming.answer import Answer
from tests.runtime.streaming.cases import same, texts
from tests.tiny_decoder import SPECIAL, make_tokenizer, vocabulary

TOKENIZER = make_tokenizer()
ids = st.lists(st.integers(0, vocabulary() - 1), max_size=30)


@settings(max_examples=20)
@given(ids=ids, cuts=st.lists(st.integers(0, 30), max_size=6))
def test_ids_in_pieces_are_ids_at_once(guard: Guard, ids: list[int], cuts: list[int]) -> None:
    """Any ids, special tokens and partial characters included, in any chunks."""
    at_once = guard.stream(prompt="rain").push(ids)
    stream = guard.stream(prompt="rain")
    places = [0, *sorted(min(cut, len(ids)) for cut in cuts), len(ids)]
    for start, stop in pairwise(places):
        verdict = stream.push(np.array(ids[start:stop]))
        assert verdict.unread_tokens == 0
    same(verdict, at_once)


@settings(max_examples=15)
@given(response=texts)
def test_ids_of_a_text_are_the_text(guard: Guard, response: str) -> None:
    """The tokenizer's ids of a text give the same verdict as the text."""
    tokens = guard.backbone.reader.literal(response)
    verdict = guard.stream(prompt="rain").push(list(tokens))
    same(verdict, guard.check(prompt="rain", response=response))


def test_other_ids_of_the_same_text(guard: Guard) -> None:
    """The conversation holds the ids that were pushed, not those of their text."""
    spelt = [i for letter in "garden" for i in TOKENIZER.encode(letter).ids[1:]]
    stream = guard.stream(prompt="rain")
    stream.push(spelt)
    by_text = guard.stream(prompt="rain").push("garden")
    assert stream.verdict.readings["siren"] == by_text.readings["siren"]
    assert stream.verdict.readings["weightwatch"] != by_text.readings["weightwatch"]
    assert stream._views[0].sequence.ids[-6:] == spelt


def test_going_back_and_on_with_ids(guard: Guard) -> None:
    """Ids that were rolled back have no effect."""
    stream = guard.stream(prompt="rain")
    stream.push([40, 41, 42])
    mark = stream.mark()
    stream.push([50, 51, 52, 53])
    stream.rollback(mark)
    verdict = stream.fork().push([60, 61, 62, 63, 64])
    same(stream.push([60, 61, 62, 63, 64]), verdict)
    same(verdict, guard.stream(prompt="rain").push([40, 41, 42, 60, 61, 62, 63, 64]))


def test_ends_of_turns_are_no_content(guard: Guard) -> None:
    """Special tokens of the model are in the conversation, but not in the content."""
    tokens = TOKENIZER.encode(" boats").ids[1:]
    end = SPECIAL.index("<|im_end|>")
    stream = guard.stream(prompt="rain")
    before = stream.push(tokens)
    after = stream.push([end])
    assert after.readings["siren"].score == before.readings["siren"].score
    assert stream._views[0].sequence.ids[-1] == end


def spelt(tokenizer: Tokenizer, pieces: list[list[int]]) -> None:
    """Fail unless the text after each chunk equals that of all ids."""
    answer, pushed = Answer("", tokenizer, vocabulary()), []
    for piece in pieces:
        answer.push(piece)
        pushed += piece
        assert answer.text == tokenizer.decode(pushed, skip_special_tokens=True)
        assert answer.fork().text == answer.text


@settings(max_examples=40)
@given(pieces=st.lists(ids, max_size=6))
def test_spelling_ids_as_they_come(pieces: list[list[int]]) -> None:
    """The text equals that of all ids decoded together, including invalid bytes."""
    spelt(TOKENIZER, pieces)


@settings(max_examples=15)
@given(pieces=st.lists(ids, max_size=4))
def test_spelling_by_decoders_that_look_around(pieces: list[list[int]]) -> None:
    """A decoder that handles the first token differently decodes all ids each time."""
    tokenizer = make_tokenizer()
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip("x", 1, 0)])
    spelt(tokenizer, pieces)
