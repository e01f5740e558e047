"""A model's tokenizer and chat template as files that the runtime reads without transformers."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.utils.hub import cached_file

from layerguard.exporter.loading.source import ModelSource
from layerguard.exporter.text import gguf_tokenizer
from layerguard.exporter.text.tokenizer_probe import count_differences
from layerguard.runtime.bundle.files import CHAT_TEMPLATE, TOKENIZER
from layerguard.runtime.checkpoints.gguf import GgufFile
from layerguard.runtime.errors import ExportError

_NO_LIMIT = 1 << 24
"""Larger values mean no limit; transformers writes 10^30."""


@dataclass(frozen=True, slots=True, eq=False)
class TextFiles:
    """The text files of a bundle.

    Attributes:
        tokenizer: without truncation and padding, which the runtime applies.
        chat_template: jinja2 text, or None.
        special_tokens: tokens by the names that a chat template may use.
        pad_token_id: fills short rows; any valid id if the model has none.
        max_tokens: the tokenizer's own limit, or None.
        note: a line for the report about the origin of the tokenizer, or None.
    """

    tokenizer: Tokenizer
    chat_template: str | None
    special_tokens: dict[str, str]
    pad_token_id: int
    max_tokens: int | None
    note: str | None = None

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json`` and, if there is one, ``chat_template.jinja``."""
        self.tokenizer.save(str(folder / TOKENIZER))
        if self.chat_template is not None:
            (folder / CHAT_TEMPLATE).write_text(self.chat_template, encoding="utf-8")


def read_tokenizer(source: ModelSource, vocabulary: int, pad_token_id: int | None) -> TextFiles:
    """Read the tokenizer of a model.

    Args:
        source: the model.
        vocabulary: rows of its embedding; all token ids must be less.
        pad_token_id: that of the configuration, for tokenizers without one.

    Raises:
        ExportError: there is no tokenizer, it is a slow one, it has ids without an embedding, or
            the model's GGUF file cannot be read.
    """
    file = source.read_gguf()
    if file is not None:
        return _from_gguf(source, file, vocabulary, pad_token_id)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            source.name, **source.arguments()
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ExportError(
            f"{source.label} has no tokenizer that transformers can load ({error}); expected "
            "tokenizer.json beside the weights: save the model's own tokenizer there with "
            "tokenizer.save_pretrained(folder)"
        ) from error
    if not tokenizer.is_fast:
        raise ExportError(
            f"{source.label} has a slow tokenizer ({type(tokenizer).__name__}), which runs only in "
            "Python; expected a fast one, that is a tokenizer.json. Convert it: AutoTokenizer."
            "from_pretrained(folder, use_fast=True) with sentencepiece or tiktoken installed, then "
            "save_pretrained(folder), or write tokenizer.json with the tokenizers package"
        )
    backend, note = _own_tokenizer(source, tokenizer)
    _check_ids(source, backend, vocabulary)
    pads = (tokenizer.pad_token_id, pad_token_id, tokenizer.eos_token_id, 0)
    limit = tokenizer.model_max_length
    return TextFiles(
        tokenizer=backend,
        chat_template=_default_template(tokenizer.chat_template),
        special_tokens={
            name: token
            for name, token in tokenizer.special_tokens_map.items()
            if isinstance(token, str) and backend.token_to_id(token) is not None
        },
        pad_token_id=next(pad for pad in pads if pad is not None and 0 <= pad < vocabulary),
        max_tokens=int(limit) if limit and limit < _NO_LIMIT else None,
        note=note,
    )


def _from_gguf(
    source: ModelSource, file: GgufFile, vocabulary: int, pad_token_id: int | None
) -> TextFiles:
    tokenizer = gguf_tokenizer.read_tokenizer(file)
    _check_ids(source, tokenizer.backend, vocabulary)
    end = file.metadata.get("tokenizer.ggml.eos_token_id")
    pads = (tokenizer.pad_token_id, pad_token_id, end, 0)
    return TextFiles(
        tokenizer=tokenizer.backend,
        chat_template=tokenizer.chat_template,
        special_tokens=tokenizer.special_tokens,
        pad_token_id=next(pad for pad in pads if isinstance(pad, int) and 0 <= pad < vocabulary),
        max_tokens=None,  # the context length of a file is that of the model
        note=tokenizer.note,
    )


def _check_ids(source: ModelSource, backend: Tokenizer, vocabulary: int) -> None:
    largest = max(backend.get_vocab(with_added_tokens=True).values())
    if largest >= vocabulary:
        raise ExportError(
            f"{source.label}: the tokenizer has ids up to {largest}, the model {vocabulary} "
            "embeddings; expected smaller ids. Use the tokenizer that the model was trained "
            "with, or model.resize_token_embeddings"
        )


def _own_tokenizer(
    source: ModelSource, tokenizer: PreTrainedTokenizerBase
) -> tuple[Tokenizer, str | None]:
    """The tokenizer of the model's tokenizer.json, and a note if it differs from transformers'.

    transformers' tokenizer is used if both give the same ids, or if they differ only in the tokens
    around a text that tokenizer_config.json requests.

    Raises:
        ExportError: the two differ, and tokenizer.json lacks tokens of tokenizer_config.json.
    """
    backend = _without_padding(tokenizer.backend_tokenizer.to_str())
    path = cached_file(
        source.name,
        TOKENIZER,
        revision=source.revision,
        _raise_exceptions_for_missing_entries=False,
    )
    if path is None:
        return backend, None
    own = _without_padding(Path(path).read_text(encoding="utf-8"))
    pieces, texts = count_differences(own, backend, special=False)
    surrounded, _ = count_differences(own, backend, special=True)
    settings = get_tokenizer_config(source.name, **source.arguments())
    is_requested = "add_bos_token" in settings or "add_eos_token" in settings
    ids = own.get_vocab(with_added_tokens=True)
    added = {
        token
        for token, number in backend.get_vocab(with_added_tokens=True).items()
        if ids.get(token) != number
    }
    named = sorted(added & set(_strings(settings)))
    if pieces == 0 and (surrounded == 0 or is_requested) and len(named) == len(added):
        return backend, None
    kind = type(tokenizer).__name__
    difference = (
        f"transformers' {kind} gives other ids for {max(pieces, surrounded)} of {texts} texts"
    )
    if named:
        raise ExportError(
            f"{source.label}: {TOKENIZER} lacks {', '.join(map(repr, named[:5]))}, which "
            f"tokenizer_config.json names, and {difference}; expected all tokens in {TOKENIZER}. "
            "Add them there"
        )
    if is_requested:
        own.post_processor = backend.post_processor
    return own, f"tokenizer: from {TOKENIZER}; {difference}"


def _strings(value: object) -> Iterator[str]:
    """Every string in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _strings(list(value.values()))
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def _without_padding(text: str) -> Tokenizer:
    """A tokenizer without truncation and padding, which the runtime applies."""
    tokenizer = Tokenizer.from_str(text)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _default_template(template: object) -> str | None:
    """The chat template; if a tokenizer has several by name, the one named default."""
    if isinstance(template, dict):
        template = template.get("default")
    return template if isinstance(template, str) else None
