"""Build the tokenizer that a GGUF file describes.

A file has no splitting rules but the name of a pre-tokenizer; llama.cpp defines the rules of each
name (llama-vocab.cpp, and convert_hf_to_gguf_update.py, which derives the names from the models'
tokenizers). transformers knows some of the names and splits like GPT-2 for all others. Byte-level
tokenizers are therefore built here from the table below, and unknown names are refused.
SentencePiece tokenizers have no such rules; transformers converts them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoTokenizer

from layerguard.runtime.checkpoints.gguf import GgufFile
from layerguard.runtime.errors import ExportError

_CONTROL, _USER_DEFINED = 3, 4
"""Types of tokens that are matched in a text before it is split."""

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SYMBOLS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_LLAMA3 = rf"{_SUFFIX}|{_WORD}|\p{{N}}{{1,3}}|{_SYMBOLS}{_TAIL}"
_QWEN2 = rf"{_SUFFIX}|{_WORD}|\p{{N}}|{_SYMBOLS}{_TAIL}"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+",
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*",
)
_PATHS = rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*{_TAIL}"
_TEKKEN = rf"{_CASED[0]}|{_CASED[1]}|\p{{N}}{_PATHS}"
_GPT4O = rf"{_CASED[0]}{_SUFFIX}?|{_CASED[1]}{_SUFFIX}?|\p{{N}}{{1,3}}{_PATHS}"
_BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"  # noqa: RUF001


@dataclass(frozen=True, slots=True)
class _Splitting:
    """The rules of a pre-tokenizer.

    Attributes:
        patterns: applied in order to the pieces so far; matches and gaps become pieces.
        whole: a piece that is in the vocabulary becomes one token without merges.
        start: a text begins with the start token unless the file's flag is false.
    """

    patterns: tuple[str, ...]
    whole: bool = False
    start: bool = False


_LIKE_GPT2 = _Splitting((_GPT2,))
_LIKE_LLAMA3 = _Splitting((_LLAMA3,), whole=True, start=True)
_LIKE_QWEN2 = _Splitting((_QWEN2,))
_DIGITS_FIRST = _Splitting((r"\p{N}", _GPT2))
_DEFAULT = _Splitting((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"))

_SPLITTINGS: Mapping[str, _Splitting] = {
    "default": _DEFAULT,
    **dict.fromkeys(
        (
            "gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "gigachat",
            "a.x-4.0", "mellum", "modern-bert", "exaone4", "jina-es", "jina-de", "jina-v2-es",
            "jina-v2-de",
        ),
        _LIKE_GPT2,
    ),
    **dict.fromkeys(
        (
            "smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b",
            "mellum2",
        ),
        _DIGITS_FIRST,
    ),
    **dict.fromkeys(
        (
            "llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0",
            "lfm2", "jina-v5-nano",
        ),
        _LIKE_LLAMA3,
    ),
    **dict.fromkeys(("dbrx", "smaug-bpe", "glm4", "chatglm-bpe"), _Splitting((_LLAMA3,))),
    **dict.fromkeys(
        (
            "qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2", "hunyuan",
            "solar-open", "grok-2",
        ),
        _LIKE_QWEN2,
    ),
    "tekken": _Splitting((_TEKKEN,), whole=True, start=True),
    **dict.fromkeys(("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"), _Splitting((_GPT4O,))),
    "falcon": _Splitting((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, r"[0-9][0-9][0-9]")),
    **dict.fromkeys(("bloom", "gpt3-finnish", "poro-chat"), _Splitting((_BLOOM,))),
    "viking": _Splitting((_BLOOM, r"\p{N}")),
}  # fmt: skip
"""Rules by ``tokenizer.ggml.pre``; a file without the key means ``default``, as in llama.cpp."""

_NAMES = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


@dataclass(frozen=True, slots=True, eq=False)
class GgufTokenizer:
    """The tokenizer of a file.

    Attributes:
        backend: ready to encode.
        special_tokens: tokens by the names that a chat template may use.
        pad_token_id: None if the file has none.
        chat_template: jinja2 text, or None.
        note: a line for the report.
    """

    backend: Tokenizer
    special_tokens: dict[str, str]
    pad_token_id: int | None
    chat_template: str | None
    note: str


def read_tokenizer(file: GgufFile) -> GgufTokenizer:
    """Build the tokenizer of a file.

    Raises:
        ExportError: the file has no tokenizer, or an unknown kind or pre-tokenizer.
    """
    kind, tokens = file.metadata.get("tokenizer.ggml.model"), _tokens(file)
    _check_lists(file, len(tokens))
    if kind == "gpt2":
        pre = file.metadata.get("tokenizer.ggml.pre", "default")
        splitting = _splitting(file, pre)
        backend, start = _byte_level(file, tokens, splitting), splitting.start
        note = f"tokenizer: byte-level BPE of {len(tokens)} tokens, split as {pre!r}"
    elif kind == "llama":
        backend, start = _sentencepiece(file), True
        note = f"tokenizer: SentencePiece BPE of {len(tokens)} tokens, as transformers converts it"
    else:
        raise ExportError(
            f"{file.path.name} has a tokenizer of kind {kind!r}; expected 'gpt2' (byte-level BPE) "
            "or 'llama' (SentencePiece BPE). Export the model in safetensors with its "
            "tokenizer.json"
        )
    special = {
        name: tokens[number]
        for name, key in _NAMES.items()
        if (number := _token_id(file, tokens, key)) is not None
    }
    _add_ends(backend, file, special, start=start)
    template = file.metadata.get("tokenizer.chat_template")
    return GgufTokenizer(
        backend=backend,
        special_tokens=special,
        pad_token_id=_token_id(file, tokens, "padding"),
        chat_template=template if isinstance(template, str) else None,
        note=note,
    )


def _tokens(file: GgufFile) -> list[str]:
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens or not isinstance(tokens[0], str):
        raise ExportError(
            f"{file.path.name} has no tokenizer.ggml.tokens; expected a vocabulary. Convert the "
            "model again with its tokenizer"
        )
    return tokens


def _check_lists(file: GgufFile, count: int) -> None:
    """Check that types and scores, if present, are as many as the tokens."""
    for key in ("tokenizer.ggml.token_type", "tokenizer.ggml.scores"):
        values = file.metadata.get(key, [None] * count)
        if not isinstance(values, list) or len(values) != count:
            length = len(values) if isinstance(values, list) else "no list"
            raise ExportError(
                f"{file.path.name} has {length} in {key} for {count} tokens; expected one value "
                "for each. Convert the model again with its tokenizer"
            )


def _splitting(file: GgufFile, pre: object) -> _Splitting:
    if not isinstance(pre, str) or pre not in _SPLITTINGS:
        raise ExportError(
            f"{file.path.name} has the unknown pre-tokenizer {str(pre)[:60]!r}; "
            f"expected one of {', '.join(_SPLITTINGS)}. Export the model in "
            "safetensors with its tokenizer.json"
        )
    return _SPLITTINGS[pre]


def _byte_level(file: GgufFile, tokens: list[str], splitting: _Splitting) -> Tokenizer:
    """A byte-level BPE, whose tokens and merges are in GPT-2's byte alphabet."""
    merges = file.metadata.get("tokenizer.ggml.merges")
    if not isinstance(merges, list) or not all(isinstance(merge, str) for merge in merges):
        raise ExportError(
            f"{file.path.name} has no tokenizer.ggml.merges; expected those of a byte-level BPE. "
            "Convert the model again with its tokenizer"
        )
    pairs = [(merge[: merge.find(" ", 1)], merge[merge.find(" ", 1) + 1 :]) for merge in merges]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    try:
        model = models.BPE(vocab=vocabulary, merges=pairs, ignore_merges=splitting.whole)
    except Exception as error:  # the tokenizers package raises bare Exceptions
        raise ExportError(
            f"{file.path.name} has merges of tokens that are not in its vocabulary ({error}); "
            "expected pairs of its tokens. Convert the model again with its tokenizer"
        ) from error
    backend = Tokenizer(model)
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in splitting.patterns]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([*splits, byte_level])
    backend.decoder = decoders.ByteLevel()
    kinds = file.metadata.get("tokenizer.ggml.token_type", [None] * len(tokens))
    for token, kind in zip(tokens, kinds, strict=True):
        if kind == _CONTROL:
            backend.add_special_tokens([AddedToken(token, normalized=False, special=True)])
        elif kind == _USER_DEFINED:
            backend.add_tokens([AddedToken(token, normalized=False, special=False)])
    return backend


def _sentencepiece(file: GgufFile) -> Tokenizer:
    """The tokenizer that transformers converts; without a space before a text if a flag says so."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(file.path.parent, gguf_file=file.path.name)
    except Exception as error:  # transformers lets any exception pass, such as KeyError
        message = " ".join(str(error).split())
        raise ExportError(
            f"{file.path.name} has a SentencePiece tokenizer that transformers does not convert "
            f"({type(error).__name__}: {message}); expected tokens with scores. Export the model "
            "in safetensors with its tokenizer.json"
        ) from error
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    if file.metadata.get("tokenizer.ggml.add_space_prefix") is False:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
        backend.normalizer = None
    return backend


def _token_id(file: GgufFile, tokens: list[str], name: str) -> int | None:
    number = file.metadata.get(f"tokenizer.ggml.{name}_token_id")
    return number if isinstance(number, int) and 0 <= number < len(tokens) else None


def _add_ends(
    backend: Tokenizer, file: GgufFile, special: Mapping[str, str], *, start: bool
) -> None:
    """Add start and end token to every text, by the file's flags or its kind's default."""
    flags: Mapping[str, Any] = {
        "bos_token": file.metadata.get("tokenizer.ggml.add_bos_token", start),
        "eos_token": file.metadata.get("tokenizer.ggml.add_eos_token", False),
    }
    ends = [special[name] if flags[name] and name in special else None for name in flags]
    template = " ".join(part for part in (ends[0], "$A", ends[1]) if part)
    tokens = [token for token in ends if token is not None]
    if any(" " in token or ":" in token for token in tokens):
        raise ExportError(
            f"{file.path.name} adds {tokens} to every text; expected tokens without spaces and "
            "colons. Export the model in safetensors with its tokenizer.json"
        )
    numbers = backend.get_vocab(with_added_tokens=True)
    backend.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(token, numbers[token]) for token in sorted(set(tokens))]
    )
