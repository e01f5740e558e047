"""A model's tokenizer and chat template as plain files that serve without transformers."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.utils.hub import cached_file

from layerguard.exporter.loading.checkpoint import Source, gguf_file
from layerguard.exporter.text import gguf_tokenizer
from layerguard.exporter.text.tokenizer_probe import differing
from layerguard.runtime.bundle.files import CHAT_TEMPLATE, TOKENIZER
from layerguard.runtime.checkpoints.gguf import GgufFile
from layerguard.runtime.errors import ExportError

_NO_LIMIT = 1 << 24
"""transformers writes 10^30 where a tokenizer has no limit."""


@dataclass(frozen=True, slots=True, eq=False)
class TextFiles:
    """What the bundle needs of a tokenizer.

    Attributes:
        tokenizer: without truncation and padding, which the runtime decides.
        chat_template: jinja2 text, or None.
        special_tokens: names to strings, as a chat template may use them.
        pad_token_id: what fills short rows; any valid id will do where the model has none.
        max_tokens: the tokenizer's own limit, or None.
        note: what the report says of where it came from, or None.
    """

    tokenizer: Tokenizer
    chat_template: str | None
    special_tokens: dict[str, str]
    pad_token_id: int
    max_tokens: int | None
    note: str | None = None

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json`` and, where there is one, ``chat_template.jinja``."""
        self.tokenizer.save(str(folder / TOKENIZER))
        if self.chat_template is not None:
            (folder / CHAT_TEMPLATE).write_text(self.chat_template, encoding="utf-8")


def read_tokenizer(source: Source, vocabulary: int, pad_token_id: int | None) -> TextFiles:
    """The tokenizer that comes with a model.

    Args:
        source: the model.
        vocabulary: rows of its embedding; no token id may be larger.
        pad_token_id: the configuration's, for tokenizers that name none.

    Raises:
        ExportError: there is none, it is a slow one, it has ids that the model has no row for, or
            the model's GGUF file cannot be read.
    """
    file = gguf_file(source)
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
    backend, note = _as_the_file_says(source, tokenizer)
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
    source: Source, file: GgufFile, vocabulary: int, pad_token_id: int | None
) -> TextFiles:
    found = gguf_tokenizer.read_tokenizer(file)
    _check_ids(source, found.backend, vocabulary)
    end = file.metadata.get("tokenizer.ggml.eos_token_id")
    pads = (found.pad_token_id, pad_token_id, end, 0)
    return TextFiles(
        tokenizer=found.backend,
        chat_template=found.chat_template,
        special_tokens=found.special_tokens,
        pad_token_id=next(pad for pad in pads if isinstance(pad, int) and 0 <= pad < vocabulary),
        max_tokens=None,  # a file's context length is the model's
        note=found.note,
    )


def _check_ids(source: Source, backend: Tokenizer, vocabulary: int) -> None:
    largest = max(backend.get_vocab(with_added_tokens=True).values())
    if largest >= vocabulary:
        raise ExportError(
            f"{source.label}: the tokenizer has ids up to {largest}, the model {vocabulary} "
            "embeddings; expected ids below that. Use the tokenizer that the model was trained "
            "with, or model.resize_token_embeddings"
        )


def _as_the_file_says(
    source: Source, tokenizer: PreTrainedTokenizerBase
) -> tuple[Tokenizer, str | None]:
    """The tokenizer that the model's own tokenizer.json describes, and a note where it decided.

    transformers' tokenizer stands where both give the same ids, and where they differ only in the
    tokens around a text because tokenizer_config.json asks for them.

    Raises:
        ExportError: the two differ, and the file lacks tokens that tokenizer_config.json names.
    """
    backend = _bare(tokenizer.backend_tokenizer.to_str())
    path = cached_file(
        source.name,
        TOKENIZER,
        revision=source.revision,
        _raise_exceptions_for_missing_entries=False,
    )
    if path is None:
        return backend, None
    own = _bare(Path(path).read_text(encoding="utf-8"))
    pieces, texts = differing(own, backend, special=False)
    wrapped, _ = differing(own, backend, special=True)
    settings = get_tokenizer_config(source.name, **source.arguments())
    asked = "add_bos_token" in settings or "add_eos_token" in settings
    ids = own.get_vocab(with_added_tokens=True)
    added = {
        token
        for token, number in backend.get_vocab(with_added_tokens=True).items()
        if ids.get(token) != number
    }
    named = sorted(added & set(_texts_in(settings)))
    if pieces == 0 and (wrapped == 0 or asked) and len(named) == len(added):
        return backend, None
    kind = type(tokenizer).__name__
    found = f"transformers' {kind} gives other ids for {max(pieces, wrapped)} of {texts} texts"
    if named:
        raise ExportError(
            f"{source.label}: {TOKENIZER} lacks {', '.join(map(repr, named[:5]))}, which "
            f"tokenizer_config.json names, and {found}; expected the model's whole tokenizer in "
            f"{TOKENIZER}. Add the tokens there"
        )
    if asked:
        own.post_processor = backend.post_processor
    return own, f"tokenizer: {TOKENIZER} as it lies there; {found}"


def _texts_in(value: object) -> Iterator[str]:
    """Every string in a JSON value, tokens among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _texts_in(list(value.values()))
    elif isinstance(value, list):
        for item in value:
            yield from _texts_in(item)


def _bare(text: str) -> Tokenizer:
    """Without truncation and padding, which the runtime decides."""
    tokenizer = Tokenizer.from_str(text)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _default_template(template: object) -> str | None:
    """Some tokenizers carry several chat templates by name; the one called default is meant."""
    if isinstance(template, dict):
        template = template.get("default")
    return template if isinstance(template, str) else None
