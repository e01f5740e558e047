"""The text rules of the bundle, from the model's own limits and the caller's options."""

from typing import Literal

from layerguard.exporter.loading.architecture import Architecture
from layerguard.exporter.loading.checkpoint import LoadedModel
from layerguard.exporter.text.tokenizer import TextFiles
from layerguard.runtime.bundle.manifest import TEXT_RULES, TextRules
from layerguard.runtime.errors import ExportError

_UNBOUNDED_TOKENS = 2048
"""Longest row if neither the model nor its tokenizer limits the number of tokens."""
_LEAST_TOKENS = 8


def text_rules(
    loaded: LoadedModel,
    architecture: Architecture,
    text: TextFiles,
    *,
    template: str | None,
    windows: Literal["head-tail", "sliding"],
    max_tokens: int | None,
    max_windows: int,
) -> TextRules:
    """The text part of the manifest; see ``Options`` for the arguments.

    Raises:
        ExportError: an option does not fit the model.
    """
    bounds = [n for n in (architecture.max_positions, text.max_tokens) if n is not None]
    most = min(bounds, default=_UNBOUNDED_TOKENS)
    tokens = most if max_tokens is None else max_tokens
    if not _LEAST_TOKENS <= tokens <= (architecture.max_positions or tokens):
        raise ExportError(
            f"max tokens {tokens}: the model takes {architecture.max_positions or 'any number'}; "
            f"expected at least {_LEAST_TOKENS} and at most what the model takes"
        )
    if max_windows < 1:
        raise ExportError(f"max windows {max_windows}; expected at least 1")
    has_chat = text.chat_template is not None
    if template is None:
        template = "chat" if has_chat and architecture.kind == "decoder" else "{prompt}"
    if template == "chat" and not has_chat:
        raise ExportError(
            "template 'chat': the tokenizer has no chat template; expected a model with one, or a "
            "template text that contains {prompt}"
        )
    if template != "chat" and template.count("{prompt}") != 1:
        raise ExportError(f"template {template!r}: expected 'chat', or a text with {{prompt}} once")
    return TextRules(
        template=template,
        windows=windows,
        max_tokens=tokens,
        max_windows=max_windows,
        pad_token_id=text.pad_token_id,
        special_tokens=text.special_tokens,
        end_token_ids=_end_tokens(loaded, architecture) if architecture.kind == "decoder" else (),
        rules_version=TEXT_RULES,
    )


def _end_tokens(loaded: LoadedModel, architecture: Architecture) -> tuple[int, ...]:
    """Ids of the tokens that end an answer: from the generation configuration, else the model's."""
    generation = getattr(loaded.causal, "generation_config", None)
    end = getattr(generation, "eos_token_id", None)
    if end is None:
        end = getattr(loaded.model.config, "eos_token_id", None)
    ids = end if isinstance(end, list) else [end]
    return tuple(sorted({i for i in ids if i is not None and 0 <= i < architecture.vocabulary}))
