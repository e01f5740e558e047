"""A model's tokenizer and chat template as plain files that serve without transformers."""

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from layerguard.exporter.loading import Source
from layerguard.runtime.bundle.files import CHAT_TEMPLATE, TOKENIZER
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
    """

    tokenizer: Tokenizer
    chat_template: str | None
    special_tokens: dict[str, str]
    pad_token_id: int
    max_tokens: int | None

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
        ExportError: there is none, it is a slow one, or it has ids that the model has no row for.
    """
    gguf = source.gguf
    try:
        tokenizer: PreTrainedTokenizerBase = (
            AutoTokenizer.from_pretrained(source.name, **source.arguments())
            if gguf is None
            else AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
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
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    largest = max(backend.get_vocab(with_added_tokens=True).values())
    if largest >= vocabulary:
        raise ExportError(
            f"{source.label}: the tokenizer has ids up to {largest}, the model {vocabulary} "
            "embeddings; expected ids below that. Use the tokenizer that the model was trained "
            "with, or model.resize_token_embeddings"
        )
    pads = (tokenizer.pad_token_id, pad_token_id, tokenizer.eos_token_id, 0)
    limit = tokenizer.model_max_length
    return TextFiles(
        tokenizer=backend,
        chat_template=_default_template(tokenizer.chat_template),
        special_tokens={
            name: token
            for name, token in tokenizer.special_tokens_map.items()
            if isinstance(token, str)
        },
        pad_token_id=next(pad for pad in pads if pad is not None and 0 <= pad < vocabulary),
        max_tokens=int(limit) if limit and limit < _NO_LIMIT else None,
    )


def _default_template(template: object) -> str | None:
    """Some tokenizers carry several chat templates by name; the one called default is meant."""
    if isinstance(template, dict):
        template = template.get("default")
    return template if isinstance(template, str) else None
