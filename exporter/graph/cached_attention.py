"""Attention over a cache that the caller keeps, registered with transformers.

Two functions are registered. The mask function evaluates the rule of a block, such as causal or
windowed, on the token positions that the attention mask gives. The attention function computes one
product with the past keys and one with the new keys, and joins the scores. Keys and values of the
past are never copied, concatenated or repeated for grouped queries.
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


class RecordingCache:
    """A cache for transformers that records the new keys and values of one forward pass only.

    Attributes:
        entries: the new keys and values by block number, from 0.
    """

    is_compileable = False

    def __init__(self) -> None:
        self.entries: dict[int, Entry] = {}

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: Any, **__: Any) -> Entry:
        """Record the new entries of a block and return them without the past."""
        self.entries[layer_idx] = keys, values
        return keys, values

    def get_seq_length(self, _: int = 0) -> int:
        """0: the model's own code sees no past."""
        return 0

    def get_query_offset(self, _: int = 0) -> int:
        """0: no token precedes the new ones."""
        return 0

    def get_mask_sizes(self, new: Any, _: int = 0) -> tuple[Any, int]:
        """The number of new tokens, given as such or by their indices, and offset 0."""
        return (new.shape[0] if isinstance(new, Tensor) else new), 0


class CacheSlots:
    """Slots of the cache and of the new tokens after it, with each token's position in the text.

    Attributes:
        positions: int64 [batch, past + tokens]; an invalid slot has the position of the slot on
            its left.
        new: int64 [batch, tokens], the positions of the new tokens.
    """

    def __init__(self, attention_mask: Tensor, past: int, tokens: int) -> None:
        """Take an int64 mask [batch, past + tokens], 1 for valid slots."""
        mask = attention_mask.narrow(1, 0, past + tokens)
        self._valid = mask[:, None, None, :] > 0
        self.positions = (mask.cumsum(1) - 1).clamp(min=0)
        self.new = self.positions.narrow(1, past, tokens)

    def allowed(self, rule: Callable[..., Tensor]) -> Tensor:
        """The slots that each new token attends to by a rule: bool [batch, 1, new, all]."""
        rows = torch.arange(self.new.shape[0])[:, None, None, None]
        allowed = rule(rows, 0, self.new[:, None, :, None], self.positions[:, None, None, :])
        return allowed & self._valid


@dataclass(frozen=True, slots=True, eq=False)
class _ForwardPass:
    """Context of the two registered functions during a forward pass."""

    slots: CacheSlots
    past: Sequence[Entry]
    attended_blocks: set[int] = field(default_factory=set)


_FORWARD_PASS: ContextVar[_ForwardPass] = ContextVar("_FORWARD_PASS")


@contextmanager
def cached_attention(
    model: PreTrainedModel, blocks: int, slots: CacheSlots, past: Sequence[Entry]
) -> Iterator[None]:
    """Let ``model`` attend to ``past`` and its own new entries within the ``with`` block.

    Args:
        model: a decoder's backbone; it is called inside, with ``RecordingCache`` as its cache.
        blocks: its number of blocks.
        slots: of the past and the new tokens.
        past: of the first blocks; other blocks attend to new tokens only.

    Raises:
        ExportError: the model does not use transformers' AttentionInterface.
    """
    forward_pass = _ForwardPass(slots, past)
    before = model.config._attn_implementation  # noqa: SLF001
    token = _FORWARD_PASS.set(forward_pass)
    try:
        try:
            model.set_attn_implementation(_NAME)
        except ValueError as error:
            raise ExportError(_refusal(model, str(error))) from error
        yield
    finally:
        _FORWARD_PASS.reset(token)
        model.set_attn_implementation(before)
    attended = forward_pass.attended_blocks
    if attended != set(range(blocks)):
        raise ExportError(_refusal(model, f"only {len(attended)} of {blocks} blocks used it"))


def _mask(*, mask_function: Callable[..., Tensor], **_: Any) -> Tensor:
    """The registered mask function: evaluates a block's rule on positions."""
    return _FORWARD_PASS.get().slots.allowed(mask_function)


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor, **settings: Any
) -> tuple[Tensor, None]:
    """The registered attention of one block; ``key`` and ``value`` are the new entries."""
    forward_pass, block = _FORWARD_PASS.get(), module.layer_idx
    assert isinstance(block, int)
    forward_pass.attended_blocks.add(block)
    parts = [*forward_pass.past[block : block + 1], (key, value)]
    slots = sum(keys.shape[2] for keys, _ in parts)
    return attend(query, parts, allowed.narrow(3, allowed.shape[3] - slots, slots), settings), None


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, _mask)


def _refusal(model: PreTrainedModel, detail: str) -> str:
    return (
        f"the attention of {type(model).__name__} cannot be replaced ({detail}); a decode graph "
        "expected one that uses transformers' AttentionInterface. Export without it: --decode no"
    )


def attend(
    query: Tensor, parts: Sequence[Entry], allowed: Tensor, settings: Mapping[str, Any]
) -> Tensor:
    """Softmax attention over keys and values in several parts.

    Args:
        query: [batch, heads, new, head_dim].
        parts: keys and values, [batch, kv_heads, slots, head_dim] each; query head h uses
            key-value head h // (heads / kv_heads).
        allowed: bool [batch, 1, new, all slots].
        settings: ``scaling`` of the scores; ``softcap`` c, scores become c tanh(score / c);
            ``s_aux`` [heads], the attention sink: an extra score per head without a value.

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
        weights = torch.cat([scores, column], -1).softmax(-1)[..., :-1]
    else:
        weights = scores.softmax(-1)
    weights = weights.to(query.dtype).reshape(batch, groups, heads // groups * new, -1)
    start, total = 0, None
    for keys, values in parts:
        product = weights.narrow(3, start, keys.shape[2]) @ values
        total = product if total is None else total + product
        start = start + keys.shape[2]
    assert total is not None
    return total.reshape(batch, heads, new, -1).transpose(1, 2)
