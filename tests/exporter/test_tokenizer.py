"""The bundle's tokenizer gives the ids of the model's own."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from layerguard.exporter.loading.checkpoint import Source
from layerguard.exporter.text.tokenizer import read_tokenizer
from layerguard.exporter.text.tokenizer_probe import differing
from layerguard.runtime.errors import ExportError
from tests.gguf_files import VOCABULARY, byte_tokenizer, byte_tokens, smollm2, write

TEXT = "The year 2024: I'm 12 or 1234  years\n\nold, then 12."


def gguf_file(folder: Path, tokenizer: dict[str, Any]) -> Source:
    """A file of a tokenizer and no tensors."""
    write(folder / "small.gguf", "llama", tokenizer, {})
    return Source(str(folder / "small.gguf"))


def byte_level(*splits: Any) -> Tokenizer:
    """The same vocabulary and merges as in the files, split by these."""
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
def test_a_pre_tokenizer_by_name_splits_as_its_models_do(
    pre: str, splits: tuple[Any, ...], tmp_path: Path
) -> None:
    """Ids equal those of the pre-tokenizers that these models were published with."""
    found = read_tokenizer(gguf_file(tmp_path, byte_tokenizer(pre)), VOCABULARY, None)
    assert differing(found.tokenizer, byte_level(*splits), special=False)[0] == 0
    assert found.note == f"tokenizer: byte-level BPE of 288 tokens, split as {pre!r}"


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
def test_types_split_digits_and_signs_each_in_their_way(
    pre: str, pieces: list[str], tmp_path: Path
) -> None:
    """Numbers of four digits, contractions and line breaks tell the types apart."""
    source = gguf_file(tmp_path, byte_tokenizer(pre))
    backend = read_tokenizer(source, VOCABULARY, None).tokenizer
    found = backend.encode("1234 12 I'll!!\n\n", add_special_tokens=False).tokens
    assert [piece for piece in pieces if piece not in found] == []
    assert ("1234" in found) == (pre == "gpt-2")


def test_whole_pieces_come_before_merges(tmp_path: Path) -> None:
    """Llama 3's type takes a piece that is a token, though no merge makes it."""
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
def test_start_and_end_are_the_files(
    pre: str, flags: dict[str, Any], around: tuple[list[str], list[str]], tmp_path: Path
) -> None:
    """As its flags say, or else as its type's models have it."""
    source = gguf_file(tmp_path, {**byte_tokenizer(pre), **flags})
    found = read_tokenizer(source, VOCABULARY, None)
    assert found.tokenizer.encode("x").tokens == [*around[0], "x", *around[1]]
    assert found.special_tokens == {"bos_token": "<|start|>", "eos_token": "<|end|>"}


def test_control_tokens_are_found_in_a_text(tmp_path: Path) -> None:
    """And a chat template, special tokens and padding come from the metadata."""
    more = {
        "tokenizer.ggml.padding_token_id": 287,
        "tokenizer.chat_template": "{{ messages }}",
    }
    source = gguf_file(tmp_path, {**byte_tokenizer(), **more})
    found = read_tokenizer(source, VOCABULARY, None)
    assert found.tokenizer.encode("a<|turn|>b").ids == [
        found.tokenizer.token_to_id("a"), 287, found.tokenizer.token_to_id("b"),
    ]  # fmt: skip
    assert (found.chat_template, found.pad_token_id) == ("{{ messages }}", 287)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tokenizer.ggml.pre": "brand-new"}, "pre-tokenizer 'brand-new', which this release"),
        ({"tokenizer.ggml.model": "rwkv"}, "tokenizer of kind 'rwkv'; expected 'gpt2'"),
        ({"tokenizer.ggml.tokens": None}, "no tokenizer.ggml.tokens"),
        ({"tokenizer.ggml.merges": None}, "no tokenizer.ggml.merges"),
        ({"tokenizer.ggml.merges": ["zz zz"]}, "merges that do not belong to its vocabulary"),
    ],
)
def test_what_is_not_known_is_refused(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    """No tokenizer is guessed."""
    source = gguf_file(tmp_path, {**byte_tokenizer(), **changes})
    with pytest.raises(ExportError) as caught:
        read_tokenizer(source, VOCABULARY, None)
    assert words in str(caught.value)


def test_smollm2_splits_digits_one_by_one() -> None:
    """Its published tokenizer splits digits, then like GPT-2; transformers drops the digits."""
    found = read_tokenizer(Source(str(smollm2())), 49152, None)
    own = Tokenizer.from_str(found.tokenizer.to_str())
    own.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), WHOLE]
    )
    count, texts = differing(found.tokenizer, own, special=True)
    assert (count, texts > 4000) == (0, True)
    assert found.tokenizer.encode(" 2024").tokens == ["Ġ", "2", "0", "2", "4"]
    assert found.special_tokens["eos_token"] == "<|im_end|>"
    assert found.chat_template is not None
    assert found.tokenizer.encode("x").tokens == ["x"]


@pytest.mark.parametrize("kind", ["GPT2Tokenizer", "Qwen2Tokenizer", "PreTrainedTokenizerFast"])
def test_the_ids_are_those_of_tokenizer_json(kind: str, tmp_path: Path) -> None:
    """Also where transformers builds the named class anew, without the file's pre-tokenizer."""
    own = byte_level(pre_tokenizers.Digits(individual_digits=True), WHOLE)
    PreTrainedTokenizerFast(
        tokenizer_object=own, bos_token="<|start|>", eos_token="<|end|>"
    ).save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tokenizer_class": kind}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    found = read_tokenizer(Source(str(tmp_path)), VOCABULARY, None)
    file = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert differing(found.tokenizer, file, special=True)[0] == 0
    assert found.tokenizer.encode("1234").tokens == ["1", "2", "3", "4"]
    if kind == "PreTrainedTokenizerFast":
        assert found.note is None
    else:
        assert found.note is not None
        assert f"tokenizer.json as it lies there; transformers' {kind} gives" in found.note


def test_a_file_that_lacks_tokens_is_refused(tmp_path: Path) -> None:
    """Which of the two is the model's cannot be told then."""
    own = byte_level(pre_tokenizers.Digits(individual_digits=True), WHOLE)
    PreTrainedTokenizerFast(tokenizer_object=own, eos_token="<|end|>").save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    changes = {"tokenizer_class": "GPT2Tokenizer", "pad_token": "<|pad|>"}
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(ExportError, match=r"tokenizer\.json lacks '<\|pad\|>', which tok"):
        read_tokenizer(Source(str(tmp_path)), 400, None)
