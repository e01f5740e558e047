"""Incremental cleaning and tokenisation give the same result as the whole text."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from layerguard.runtime.streaming.growing_text import GrowingContent, GrowingIds
from layerguard.runtime.text.cuts import _PATTERNS, CUT, cut_apart, is_cuttable
from layerguard.runtime.text.request import clean
from tests.runtime.streaming.cases import PIECES, texts
from tests.tiny_decoder import CORPUS, make_tokenizer

BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def split(pattern: str, behavior: str = "isolated") -> pre_tokenizers.PreTokenizer:
    """A pre-tokenizer of one pattern, then bytes."""
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), behavior), BYTES])


def trained(pre_tokenizer: pre_tokenizers.PreTokenizer, form: str | None = None) -> Tokenizer:
    """Byte-level BPE that would join across any border its pre-tokenizer leaves open."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    if form is not None:
        tokenizer.normalizer = getattr(normalizers, form)()
    trainer = trainers.BpeTrainer(
        vocab_size=1200, min_frequency=1, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator([*CORPUS * 3, *PIECES], trainer)
    tokenizer.add_tokens(["<|im_", "boats", AddedToken(" x", normalized=False)])
    tokenizer.encode_special_tokens = True
    return tokenizer


CUTTABLE = {
    "gpt2": trained(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "digits": trained(
        pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    ),
    "words": trained(pre_tokenizers.Whitespace()),
    "bert": trained(pre_tokenizers.BertPreTokenizer(), "BertNormalizer"),
    **{f"pattern {i}": trained(split(p), "NFC") for i, p in enumerate(sorted(_PATTERNS))},
}


@given(chunks=st.lists(texts, max_size=8), backs=st.lists(st.integers(0, 30), max_size=8))
@example(chunks=["a<|im_sta", "rt|>b", " \n\n", "\n c"], backs=[])
@example(chunks=["  a ", "[INST] [INST]", " ", "b"], backs=[3, 0, 1])
def test_cleaning_a_growing_text(chunks: list[str], backs: list[int]) -> None:
    """After any additions and removals at the end, the result equals that of the whole text."""
    growing, text = GrowingContent(), ""
    for chunk, back in zip(chunks, [*backs, *[0] * 8], strict=False):
        text = text[: len(text) - back] + chunk
        assert growing.update(text) == clean(text)
        assert growing.fork().update(text + "!") == clean(text + "!")


@pytest.mark.parametrize("name", CUTTABLE)
@settings(max_examples=30)
@given(chunks=st.lists(texts, max_size=8), backs=st.lists(st.integers(0, 30), max_size=8))
def test_tokenising_a_growing_text(name: str, chunks: list[str], backs: list[int]) -> None:
    """The ids equal those of the whole text, and the reported prefix is unchanged."""
    tokenizer, text, before = CUTTABLE[name], "", [0] * 0
    assert is_cuttable(tokenizer)
    growing = GrowingIds(lambda part: tokenizer.encode(part).ids, cuttable=True)
    for chunk, back in zip(chunks, [*backs, *[0] * 8], strict=False):
        text = text[: len(text) - back] + chunk
        unchanged = growing.update(text)
        assert growing.ids == tokenizer.encode(text).ids
        assert growing.ids[:unchanged] == before[:unchanged]
        before = list(growing.ids)


@pytest.mark.parametrize("name", CUTTABLE)
@settings(max_examples=40)
@given(text=st.lists(st.sampled_from(PIECES) | st.text(max_size=9), max_size=20).map("".join))
def test_ids_fall_apart_at_every_cut(name: str, text: str) -> None:
    """Ids can be split at every cut of any text, as ``is_cuttable`` says."""
    encode = CUTTABLE[name].encode
    whole = encode(text).ids
    for match in CUT.finditer(text):
        assert [*encode(text[: match.start()]).ids, *encode(text[match.start() :]).ids] == whole


@pytest.mark.parametrize("name", CUTTABLE)
@settings(max_examples=20)
@given(text=st.lists(st.sampled_from(PIECES) | st.text(max_size=9), max_size=20).map("".join))
def test_a_text_is_cut_apart_into_parts_of_about_one_size(name: str, text: str) -> None:
    """The parts are the text, and have its ids."""
    parts = list(cut_apart(text, 5))
    encode = CUTTABLE[name].encode
    assert "".join(parts) == text
    assert [number for part in parts for number in encode(part).ids] == encode(text).ids
    assert all(len(part) >= 5 for part in parts[:-1])


def cut_short(texts: list[str]) -> int:
    """Number of characters that are tokenised while the text grows."""
    tokenizer, seen = make_tokenizer(), 0

    def encode(part: str) -> list[int]:
        nonlocal seen
        seen += len(part)
        return list(tokenizer.encode(part).ids)

    growing = GrowingIds(encode, cuttable=is_cuttable(tokenizer))
    for text in texts:
        growing.update(text)
    return seen


def test_what_is_new_is_what_costs() -> None:
    """A text of ten times the length needs ten times the work, not a hundred times."""
    word = " garden"
    short, long = ([word * n for n in range(1, count)] for count in (40, 400))
    assert cut_short(long) < 12 * cut_short(short)


REFUSED = {
    "adds a blank": trained(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "no pre-tokenizer": trained(BYTES),
    "an unknown pattern": trained(split(r"\w+ \w+|\s+|.")),
    "a pattern that removes": trained(split(min(_PATTERNS), "removed")),
    "a normalizer that rewrites": trained(
        pre_tokenizers.ByteLevel(add_prefix_space=False), "Strip"
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_proven_is_not_cut(name: str) -> None:
    """An unknown tokenizer always reads the whole text."""
    tokenizer = REFUSED[name]
    assert not is_cuttable(tokenizer)
    growing = GrowingIds(lambda part: tokenizer.encode(part).ids, cuttable=False)
    for text in ("a b", "a b c", "a"):
        assert growing.update(text) == 0
        assert growing.ids == tokenizer.encode(text).ids


@pytest.mark.parametrize("token", [AddedToken("a b"), AddedToken("<x>", rstrip=True)])
def test_added_tokens_that_reach_over_a_cut(token: AddedToken) -> None:
    """Tokens that contain a cut, or strip blanks after them, disable cutting."""
    tokenizer = make_tokenizer()
    assert is_cuttable(tokenizer)
    tokenizer.add_tokens([token])
    assert not is_cuttable(tokenizer)
