"""Attention over a cache that the host keeps, as transformers' models can be told to use.

A model is told by two registrations. Its masks then come as rules over token positions, causal or
windowed as each block has it, and are worked out here from the positions that the mask gives. Its
attention attends to the past and the new tokens in two products whose scores are joined: keys and
values of the past are read where they lie, never copied, joined or repeated for grouped queries, so
a token costs what attention itself costs.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from layerguard.runtime.errors import ExportError

_NAME = "layerguard_cached"

Entry = tuple[Tensor, Tensor]
"""Keys and values of one block, [batch, kv_heads, tokens, head_dim] each."""


class NewEntries:
    """What transformers takes for a cache: notes the new keys and values, and keeps no others.

    Attributes:
        of: by block number, from 0, the entries that one forward pass made.
    """

    is_compileable = False

    def __init__(self) -> None:
        self.of: dict[int, Entry] = {}

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: Any, **__: Any) -> Entry:
        """Note a block's new entries and hand them back alone."""
        self.of[layer_idx] = keys, values
        return keys, values

    def get_seq_length(self, _: int = 0) -> int:
        """No past, as far as the model's own code is concerned."""
        return 0

    def get_query_offset(self, _: int = 0) -> int:
        """The first new token follows nothing."""
        return 0

    def get_mask_sizes(self, new: Any, _: int = 0) -> tuple[Any, int]:
        """Keys are as many as the new tokens (a number, or their indices), from the first."""
        return (new.shape[0] if isinstance(new, Tensor) else new), 0


class Places:
    """The places of a cache and of the new tokens behind it, and what each token is in the text.

    Attributes:
        positions: int64 [batch, past + tokens]; a place that is not valid has its left
            neighbour's.
        new: int64 [batch, tokens], those of the new tokens.
    """

    def __init__(self, attention_mask: Tensor, past: int, tokens: int) -> None:
        """Take an int64 mask [batch, past + tokens], 1 where a place is valid."""
        mask = attention_mask.narrow(1, 0, past + tokens)
        self._valid = mask[:, None, None, :] > 0
        self.positions = (mask.cumsum(1) - 1).clamp(min=0)
        self.new = self.positions.narrow(1, past, tokens)

    def allowed(self, rule: Callable[..., Tensor]) -> Tensor:
        """Which places each new token sees by a rule over positions: bool [batch, 1, new, all]."""
        rows = torch.arange(self.new.shape[0])[:, None, None, None]
        seen = rule(rows, 0, self.new[:, None, :, None], self.positions[:, None, None, :])
        return seen & self._valid


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """What the two registered functions need to know while a model runs."""

    places: Places
    past: Sequence[Entry]
    attended: set[int] = field(default_factory=set)


_RUN: ContextVar[_Run] = ContextVar("_RUN")


@contextmanager
def cached_attention(
    model: PreTrainedModel, blocks: int, places: Places, past: Sequence[Entry]
) -> Iterator[None]:
    """Let ``model`` attend, within the ``with`` block, to ``past`` and its own new entries.

    Args:
        model: a decoder's backbone; it is called inside, with ``NewEntries`` as its cache.
        blocks: how many it has.
        places: of the past and the new tokens.
        past: of the first blocks; the others see new tokens only.

    Raises:
        ExportError: the model's attention is its own, and cannot be told.
    """
    run = _Run(places, past)
    before = model.config._attn_implementation  # noqa: SLF001
    token = _RUN.set(run)
    try:
        try:
            model.set_attn_implementation(_NAME)
        except ValueError as error:
            raise ExportError(_refusal(model, str(error))) from error
        yield
    finally:
        _RUN.reset(token)
        model.set_attn_implementation(before)
    if run.attended != set(range(blocks)):
        raise ExportError(_refusal(model, f"only {len(run.attended)} of {blocks} blocks asked"))


def _mask(*, mask_function: Callable[..., Tensor], **_: Any) -> Tensor:
    """The registered mask: a block's rule, such as causal or windowed, over positions."""
    return _RUN.get().places.allowed(mask_function)


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor, **settings: Any
) -> tuple[Tensor, None]:
    """The registered attention, of one block; ``key`` and ``value`` are the new ones."""
    run, block = _RUN.get(), module.layer_idx
    assert isinstance(block, int)
    run.attended.add(block)
    parts = [*run.past[block : block + 1], (key, value)]
    seen = sum(keys.shape[2] for keys, _ in parts)
    return attend(query, parts, allowed.narrow(3, allowed.shape[3] - seen, seen), settings), None


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, _mask)


def _refusal(model: PreTrainedModel, found: str) -> str:
    return (
        f"the attention of {type(model).__name__} is its own ({found}); expected one that goes "
        "through transformers' AttentionInterface, as a decode graph needs. Export without it: "
        "--decode no"
    )


def attend(
    query: Tensor, parts: Sequence[Entry], allowed: Tensor, settings: Mapping[str, Any]
) -> Tensor:
    """Softmax attention over keys and values that lie in several parts.

    Args:
        query: [batch, heads, new, head_dim].
        parts: keys and values, [batch, kv_heads, places, head_dim] each; query head h reads
            key-value head h // (heads / kv_heads).
        allowed: bool [batch, 1, new, all places].
        settings: ``scaling`` of the scores; ``softcap`` c, scores become c tanh(score / c);
            ``s_aux``, [heads], one more score of each head, of a place that holds nothing.

    Returns:
        [batch, new, heads, head_dim].
    """
    batch, heads, new, width = query.shape
    groups = parts[0][0].shape[1]
    scaling, cap = settings.get("scaling"), settings.get("softcap")
    scaled = query * (width**-0.5 if scaling is None else scaling)
    packed = scaled.reshape(batch, groups, heads // groups * new, width)
    scores = torch.cat([packed @ keys.transpose(2, 3) for keys, _ in parts], -1)
    scores = scores.reshape(batch, heads, new, -1).to(torch.float32)
    if cap is not None:
        scores = torch.tanh(scores / cap) * cap
    scores = torch.where(allowed, scores, torch.finfo(torch.float32).min)
    sinks = settings.get("s_aux")
    if sinks is not None:
        column = sinks.reshape(1, -1, 1, 1).expand(batch, -1, new, -1).to(torch.float32)
        shares = torch.cat([scores, column], -1).softmax(-1)[..., :-1]
    else:
        shares = scores.softmax(-1)
    shares = shares.to(query.dtype).reshape(batch, groups, heads // groups * new, -1)
    start, total = 0, None
    for keys, values in parts:
        share = shares.narrow(3, start, keys.shape[2]) @ values
        total = share if total is None else total + share
        start = start + keys.shape[2]
    assert total is not None
    return total.reshape(batch, heads, new, -1).transpose(1, 2)
