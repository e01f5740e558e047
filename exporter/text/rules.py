"""How the bundle will turn texts into tokens: the model's own rules and the caller's wishes."""

from typing import Literal

from layerguard.exporter.loading.architecture import Architecture
from layerguard.exporter.loading.checkpoint import Loaded
from layerguard.exporter.text.tokenizer import TextFiles
from layerguard.runtime.bundle.manifest import TEXT_RULES, TextRules
from layerguard.runtime.errors import ExportError

_UNBOUNDED_TOKENS = 2048
"""Longest row where neither the model nor its tokenizer bounds the text."""
_LEAST_TOKENS = 8


def text_rules(
    loaded: Loaded,
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
        ExportError: a wish does not fit the model.
    """
    bounds = [n for n in (architecture.max_positions, text.max_tokens) if n is not None]
    most = min(bounds, default=_UNBOUNDED_TOKENS)
    tokens = most if max_tokens is None else max_tokens
    if not _LEAST_TOKENS <= tokens <= (architecture.max_positions or tokens):
        raise ExportError(
            f"max tokens {tokens}: the model takes {architecture.max_positions or 'any number'}; "
            f"expected at least {_LEAST_TOKENS} and no more than that"
        )
    if max_windows < 1:
        raise ExportError(f"max windows {max_windows}; expected at least 1")
    has_chat = text.chat_template is not None
    if template is None:
        template = "chat" if has_chat and architecture.kind == "decoder" else "{prompt}"
    if template == "chat" and not has_chat:
        raise ExportError(
            "template 'chat': the tokenizer has no chat template; expected one, or give a text "
            "with {prompt} in it"
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


def _end_tokens(loaded: Loaded, architecture: Architecture) -> tuple[int, ...]:
    """With which the model ends an answer: generation's, else the configuration's."""
    generation = getattr(loaded.causal, "generation_config", None)
    found = getattr(generation, "eos_token_id", None)
    if found is None:
        found = getattr(loaded.model.config, "eos_token_id", None)
    ids = found if isinstance(found, list) else [found]
    return tuple(sorted({i for i in ids if i is not None and 0 <= i < architecture.vocabulary}))
