"""After every push the verdict equals that of ``check`` on the text so far."""

from itertools import accumulate

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from layerguard.runtime import Guard
from tests.runtime.streaming.cases import chunked, same, texts
from tests.tiny_decoder import CORPUS

sizes = st.lists(st.integers(1, 9), min_size=1, max_size=6)


@settings(max_examples=25)
@given(prompt=texts, response=texts, sizes=sizes)
@example(prompt="", response="", sizes=[1])
@example(prompt=" ", response=" \n", sizes=[1])
@example(prompt="a", response="<|im_start|>b<|im_start|>", sizes=[1])
@example(prompt="the garden", response="quiet ,\n\n\n\n 雨。", sizes=[2])
def test_text_chunks(guard: Guard, prompt: str, response: str, sizes: list[int]) -> None:
    """Chunks of text that split words, chat markers and special tokens at any point."""
    with guard.stream(prompt=prompt) as stream:
        same(stream.verdict, guard.check(prompt=prompt))
        read = ""
        for start, stop in zip([0, *accumulate(sizes)], accumulate(sizes), strict=False):
            chunk = response[start:stop]
            read += chunk
            verdict = stream.push(chunk)
            same(verdict, guard.check(prompt=prompt, response=read))
            assert verdict.unread_tokens == 0
        same(stream.push(response[len(read) :]), guard.check(prompt=prompt, response=response))
        assert stream.rescoring is None


@settings(max_examples=20)
@given(response=texts, sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6))
@example(response="👍🏽 雨が来る前", sizes=[1])
def test_byte_chunks(guard: Guard, response: str, sizes: list[int]) -> None:
    """Chunks of bytes that split characters; an incomplete character counts as unread."""
    read = b""
    with guard.stream(prompt="the hills") as stream:
        for chunk in chunked(response.encode(), sizes):
            read += chunk
            verdict = stream.push(chunk)
            complete = read.decode(errors="ignore")
            same(verdict, guard.check(prompt="the hills", response=complete))
            assert verdict.unread_tokens == (complete.encode() != read)


@pytest.mark.parametrize("text", CORPUS)
def test_every_prefix_in_many_alphabets(guard: Guard, text: str) -> None:
    """One character after the other, in Latin, Cyrillic, Japanese, Arabic and emoji."""
    with guard.stream(prompt="was") as stream:
        for end in range(1, len(text) + 1):
            verdict = stream.push(text[end - 1])
            same(verdict, guard.check(prompt="was", response=text[:end]))


@settings(max_examples=10)
@given(texts=st.lists(texts, min_size=1, max_size=3), pushed=texts)
def test_a_response_that_was_begun(guard: Guard, texts: list[str], pushed: str) -> None:
    """A response given with the prompt is the beginning of what is pushed."""
    begun = "".join(texts)
    stream = guard.stream(prompt="rain", response=begun)
    same(stream.verdict, guard.check(prompt="rain", response=begun))
    same(stream.push(pushed), guard.check(prompt="rain", response=begun + pushed))


def test_a_text_is_a_prompt(guard: Guard) -> None:
    """``text`` is what ``check`` takes it for: a prompt."""
    verdict = guard.stream("over the hills").push(" and boats")
    same(verdict, guard.check(prompt="over the hills", response=" and boats"))
