"""The bundle's tokenizer gives the same ids as the model's own."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from layerguard.exporter.loading.source import ModelSource
from layerguard.exporter.text.tokenizer import read_tokenizer
from layerguard.exporter.text.tokenizer_probe import count_differences
from layerguard.runtime.errors import ExportError
from tests.gguf_files import VOCABULARY, byte_tokenizer, byte_tokens, smollm2, write

TEXT = "The year 2024: I'm 12 or 1234  years\n\nold, then 12."


def gguf_file(folder: Path, tokenizer: dict[str, Any]) -> ModelSource:
    """A file with a tokenizer and no tensors."""
    write(folder / "small.gguf", "llama", tokenizer, {})
    return ModelSource(str(folder / "small.gguf"))


def byte_level(*splits: Any) -> Tokenizer:
    """A tokenizer with the vocabulary and merges of the files, and these pre-tokenizers."""
    tokens, merges = byte_tokens()
    value = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
        "normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None,
        "model": {
            "type": "BPE", "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [merge.split() for merge in merges],
        },
    }  # fmt: skip
    tokenizer = Tokenizer.from_str(json.dumps(value))
    tokenizer.add_special_tokens(["<|end|>", "<|start|>", "<|turn|>"])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(list(splits))
    return tokenizer


WHOLE = pre_tokenizers.ByteLevel(add_prefix_space=False)


@pytest.mark.parametrize(
    ("pre", "splits"),
    [
        ("gpt-2", (WHOLE,)),
        ("smollm", (pre_tokenizers.Digits(individual_digits=True), WHOLE)),
        ("starcoder", (pre_tokenizers.Digits(individual_digits=True), WHOLE)),
    ],
)
def test_a_pre_tokenizer_splits_like_the_models_of_its_name(
    pre: str, splits: tuple[Any, ...], tmp_path: Path
) -> None:
    """Ids equal those of the pre-tokenizers that these models were published with."""
    text = read_tokenizer(gguf_file(tmp_path, byte_tokenizer(pre)), VOCABULARY, None)
    assert count_differences(text.tokenizer, byte_level(*splits), special=False)[0] == 0
    assert text.note == f"tokenizer: byte-level BPE of 288 tokens, split as {pre!r}"


@pytest.mark.parametrize(
    ("pre", "pieces"),
    [
        ("gpt-2", ["1234", "Ġ12", "'ll", "ĊĊ"]),
        ("smollm", ["Ġ", "1", "2", "3", "4", "'ll", "ĊĊ"]),
        ("qwen2", ["1", "2", "3", "4", "'ll", "!!", "ĊĊ"]),
        ("llama-bpe", ["12", "3", "4", "'ll"]),
        ("default", ["12", "3", "4"]),
    ],
)
def test_pre_tokenizers_split_digits_and_signs_differently(
    pre: str, pieces: list[str], tmp_path: Path
) -> None:
    """Numbers of four digits, contractions and line breaks distinguish them."""
    source = gguf_file(tmp_path, byte_tokenizer(pre))
    backend = read_tokenizer(source, VOCABULARY, None).tokenizer
    tokens = backend.encode("1234 12 I'll!!\n\n", add_special_tokens=False).tokens
    assert [piece for piece in pieces if piece not in tokens] == []
    assert ("1234" in tokens) == (pre == "gpt-2")


def test_whole_pieces_are_matched_before_merges(tmp_path: Path) -> None:
    """With Llama 3's rules a piece in the vocabulary is one token, even if no merge gives it."""
    values = byte_tokenizer("llama-bpe")
    values["tokenizer.ggml.tokens"] = ["Ġcat" if t == "<unused0>" else t for t in byte_tokens()[0]]
    backend = read_tokenizer(gguf_file(tmp_path, values), VOCABULARY, None).tokenizer
    assert backend.encode("a cat", add_special_tokens=False).tokens == ["a", "Ġcat"]
    values["tokenizer.ggml.pre"] = "gpt-2"
    backend = read_tokenizer(gguf_file(tmp_path, values), VOCABULARY, None).tokenizer
    assert backend.encode("a cat", add_special_tokens=False).tokens == ["a", "Ġ", "c", "a", "t"]


@pytest.mark.parametrize(
    ("pre", "flags", "around"),
    [
        ("gpt-2", {}, ([], [])),
        ("llama-bpe", {}, (["<|start|>"], [])),
        ("llama-bpe", {"tokenizer.ggml.add_bos_token": False}, ([], [])),
        ("qwen2", {"tokenizer.ggml.add_bos_token": True}, (["<|start|>"], [])),
        ("gpt-2", {"tokenizer.ggml.add_eos_token": True}, ([], ["<|end|>"])),
    ],
)
def test_start_and_end_tokens_follow_the_file(
    pre: str, flags: dict[str, Any], around: tuple[list[str], list[str]], tmp_path: Path
) -> None:
    """They follow its flags, else the default of its pre-tokenizer."""
    source = gguf_file(tmp_path, {**byte_tokenizer(pre), **flags})
    text = read_tokenizer(source, VOCABULARY, None)
    assert text.tokenizer.encode("x").tokens == [*around[0], "x", *around[1]]
    assert text.special_tokens == {"bos_token": "<|start|>", "eos_token": "<|end|>"}


def test_control_tokens_are_matched_in_a_text(tmp_path: Path) -> None:
    """Chat template, special tokens and padding come from the metadata."""
    more = {
        "tokenizer.ggml.padding_token_id": 287,
        "tokenizer.chat_template": "{{ messages }}",
    }
    source = gguf_file(tmp_path, {**byte_tokenizer(), **more})
    text = read_tokenizer(source, VOCABULARY, None)
    assert text.tokenizer.encode("a<|turn|>b").ids == [
        text.tokenizer.token_to_id("a"), 287, text.tokenizer.token_to_id("b"),
    ]  # fmt: skip
    assert (text.chat_template, text.pad_token_id) == ("{{ messages }}", 287)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tokenizer.ggml.pre": "brand-new"}, "unknown pre-tokenizer 'brand-new'"),
        ({"tokenizer.ggml.model": "rwkv"}, "tokenizer of kind 'rwkv'; expected 'gpt2'"),
        ({"tokenizer.ggml.tokens": None}, "no tokenizer.ggml.tokens"),
        ({"tokenizer.ggml.merges": None}, "no tokenizer.ggml.merges"),
        ({"tokenizer.ggml.merges": ["zz zz"]}, "merges of tokens that are not in its vocabulary"),
    ],
)
def test_an_unknown_tokenizer_is_refused(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    """The message has the unknown or missing key."""
    source = gguf_file(tmp_path, {**byte_tokenizer(), **changes})
    with pytest.raises(ExportError) as caught:
        read_tokenizer(source, VOCABULARY, None)
    assert words in str(caught.value)


def test_smollm2_splits_digits_one_by_one() -> None:
    """Its published tokenizer splits digits, then like GPT-2; transformers omits the first."""
    text = read_tokenizer(ModelSource(str(smollm2())), 49152, None)
    own = Tokenizer.from_str(text.tokenizer.to_str())
    own.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), WHOLE]
    )
    count, texts = count_differences(text.tokenizer, own, special=True)
    assert (count, texts > 4000) == (0, True)
    assert text.tokenizer.encode(" 2024").tokens == ["Ġ", "2", "0", "2", "4"]
    assert text.special_tokens["eos_token"] == "<|im_end|>"
    assert text.chat_template is not None
    assert text.tokenizer.encode("x").tokens == ["x"]


@pytest.mark.parametrize("kind", ["GPT2Tokenizer", "Qwen2Tokenizer", "PreTrainedTokenizerFast"])
def test_the_ids_are_those_of_tokenizer_json(kind: str, tmp_path: Path) -> None:
    """Also if transformers rebuilds the class without the file's pre-tokenizer."""
    own = byte_level(pre_tokenizers.Digits(individual_digits=True), WHOLE)
    PreTrainedTokenizerFast(
        tokenizer_object=own, bos_token="<|start|>", eos_token="<|end|>"
    ).save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tokenizer_class": kind}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    text = read_tokenizer(ModelSource(str(tmp_path)), VOCABULARY, None)
    file = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert count_differences(text.tokenizer, file, special=True)[0] == 0
    assert text.tokenizer.encode("1234").tokens == ["1", "2", "3", "4"]
    if kind == "PreTrainedTokenizerFast":
        assert text.note is None
    else:
        assert text.note is not None
        assert f"tokenizer: from tokenizer.json; transformers' {kind} gives" in text.note


def test_a_file_that_lacks_tokens_is_refused(tmp_path: Path) -> None:
    """It is then unknown which of the two tokenizers is the model's."""
    own = byte_level(pre_tokenizers.Digits(individual_digits=True), WHOLE)
    PreTrainedTokenizerFast(tokenizer_object=own, eos_token="<|end|>").save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    changes = {"tokenizer_class": "GPT2Tokenizer", "pad_token": "<|pad|>"}
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(ExportError, match=r"tokenizer\.json lacks '<\|pad\|>', which tok"):
        read_tokenizer(ModelSource(str(tmp_path)), 400, None)
