"""Pooling of states over the valid tokens of each row."""

import torch
from torch import Tensor


class Pooling:
    """Last-token and mean pooling of one batch; everything that depends on the mask is shared."""

    def __init__(self, attention_mask: Tensor) -> None:
        """Take an int64 mask [batch, tokens]; padding may be on the left or right."""
        rows, tokens = attention_mask.shape
        self._rows = torch.arange(rows)
        self._last = (attention_mask * torch.arange(tokens)).amax(1)
        valid = attention_mask.to(torch.float32)
        self._weights = (valid / valid.sum(1, keepdim=True).clamp(min=1)).unsqueeze(1)

    def last(self, states: Tensor) -> Tensor:
        """[batch, tokens, hidden] -> float32 [batch, hidden]: the last valid token."""
        return states[self._rows, self._last].to(torch.float32)

    def mean(self, states: Tensor) -> Tensor:
        """[batch, tokens, hidden] -> float32 [batch, hidden]: mean over valid tokens, in float32.

        A product with the weights [batch, 1, tokens] reads the states once without a copy;
        ``(states * mask).sum(1)`` would write them all again.
        """
        return torch.matmul(self._weights, states.to(torch.float32)).squeeze(1)
