"""SentencePiece tokenizers of GGUF files equal those of transformers, or are refused."""

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from layerguard.exporter.loading.source import ModelSource
from layerguard.exporter.text.tokenizer import read_tokenizer
from layerguard.exporter.text.tokenizer_probe import count_differences
from layerguard.runtime.errors import ExportError
from tests.gguf_files import write

_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_WORDS = ["▁t", "he", "▁the", "the", "ca", "cat", "▁cat", "▁▁", "▁▁▁▁", "in", "▁in"]
_SIGNS = ["▁", *"abcdefghijklmnopqrstuvwxyz0123456789.,'!"]
_TOKENS = ["<unk>", "<s>", "</s>", *_BYTES, *_WORDS, *_SIGNS, "<|turn|>"]
_UNKNOWN, _NORMAL, _CONTROL, _BYTE = 2, 1, 3, 6


def spm_tokenizer() -> dict[str, Any]:
    """Metadata in the format of llama.cpp's converter: words by rank, then single characters."""
    words = len(_WORDS) + len(_SIGNS)
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": _TOKENS,
        "tokenizer.ggml.scores": [0.0] * 259 + [-1.0 - rank for rank in range(words)] + [0.0],
        "tokenizer.ggml.token_type": [
            _UNKNOWN, _CONTROL, _CONTROL, *[_BYTE] * 256, *[_NORMAL] * words, _CONTROL,
        ],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }  # fmt: skip


def spm_file(folder: Path, architecture: str = "llama", **changes: Any) -> ModelSource:
    """A file with a tokenizer and no tensors; ``changes`` to its keys, None removes one."""
    values = spm_tokenizer() | {f"tokenizer.ggml.{key}": value for key, value in changes.items()}
    write(folder / "small.gguf", architecture, values, {})
    return ModelSource(str(folder / "small.gguf"))


def tokenizer_of(source: ModelSource) -> Tokenizer:
    """The tokenizer for a bundle; transformers adds four tokens for Gemma."""
    return read_tokenizer(source, len(_TOKENS) + 4, None).tokenizer


@pytest.mark.parametrize(
    ("architecture", "flags"),
    [
        ("llama", {}),
        ("llama", {"add_space_prefix": True}),
        ("llama", {"add_bos_token": False, "add_eos_token": True}),
        ("phi3", {}),
        ("gemma2", {"add_space_prefix": False}),
    ],
)
def test_ids_equal_those_of_transformers(
    architecture: str, flags: dict[str, bool], tmp_path: Path
) -> None:
    """Including special tokens; characters outside the vocabulary become bytes."""
    tokenizer = tokenizer_of(spm_file(tmp_path, architecture, **flags))
    converted = AutoTokenizer.from_pretrained(tmp_path, gguf_file="small.gguf").backend_tokenizer
    count, texts = count_differences(tokenizer, converted, special=True)
    assert (count, texts > 600) == (0, True)
    assert "<0xC3>" in tokenizer.encode("é").tokens


@pytest.mark.parametrize(
    ("text", "with_space", "without"),
    [
        ("the cat", ["▁the", "▁cat"], ["the", "▁cat"]),
        (" the", ["▁the"], ["▁the"]),
        ("the<|turn|>the", ["▁the", "<|turn|>", "the"], ["the", "<|turn|>", "the"]),
        ("in    in", ["▁in", "▁▁▁▁", "in"], ["in", "▁▁▁▁", "in"]),
        ("", [], []),
    ],
)
def test_the_space_before_a_text_follows_the_file(
    text: str, with_space: list[str], without: list[str], tmp_path: Path
) -> None:
    """It is added unless ``add_space_prefix`` is false, which transformers ignores."""
    for flag, expected in ((None, with_space), (True, with_space), (False, without)):
        tokenizer = tokenizer_of(spm_file(tmp_path, add_space_prefix=flag))
        assert tokenizer.encode(text).tokens == ["<s>", *expected]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scores": None}, "does not convert (KeyError: 'scores'); expected tokens with scores"),
        ({"scores": [0.0] * 9}, f"9 in tokenizer.ggml.scores for {len(_TOKENS)} tokens"),
        ({"token_type": [1] * 9}, f"9 in tokenizer.ggml.token_type for {len(_TOKENS)} tokens"),
        ({"token_type": 1}, "no list in tokenizer.ggml.token_type"),
    ],
)
def test_an_incomplete_tokenizer_is_refused(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    """The message has one line with the key."""
    with pytest.raises(ExportError) as caught:
        tokenizer_of(spm_file(tmp_path, **changes))
    assert words in str(caught.value)
    assert str(caught.value).startswith("small.gguf has ")
    assert "\n" not in str(caught.value)


def test_a_damaged_file_raises_an_export_error(tmp_path: Path) -> None:
    """A truncated header, or two files in a folder."""
    source = spm_file(tmp_path)
    path = tmp_path / "small.gguf"
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(ExportError, match=r"small\.gguf is damaged"):
        tokenizer_of(source)
    path.rename(tmp_path / "another.gguf")
    spm_file(tmp_path)
    with pytest.raises(ExportError, match="contains 2 GGUF files"):
        tokenizer_of(ModelSource(str(tmp_path)))
