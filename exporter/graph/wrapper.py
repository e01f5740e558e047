"""A backbone as a module whose forward returns the planned outputs; this is what is traced."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from layerguard.exporter.graph.recording import recording
from layerguard.exporter.loading.architecture import Architecture
from layerguard.runtime.bundle.manifest import OutputCard


class Pooling:
    """Last-token and mean pooling of one batch; the mask's part is computed once."""

    def __init__(self, attention_mask: Tensor) -> None:
        """Take an int64 mask [batch, tokens]; padding may lie left or right."""
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

        A product with the weights [batch, 1, tokens] reads the states once and copies nothing;
        ``(states * mask).sum(1)`` would write them all again.
        """
        return torch.matmul(self._weights, states.to(torch.float32)).squeeze(1)


class Reader(nn.Module):
    """The backbone with the planned outputs.

    Blocks above the last planned state are run by the trace and, as no output needs them, are gone
    from the graph: a cut is exact by construction.
    """

    def __init__(
        self,
        architecture: Architecture,
        outputs: Sequence[OutputCard],
        feed_forwards: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__()
        self.model = architecture.model
        self._architecture = architecture
        self._outputs = tuple(outputs)
        self._feed_forwards = tuple(feed_forwards)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """int64 [batch, tokens] twice -> the outputs in their planned order."""
        arguments = self._architecture.arguments(input_ids, attention_mask)
        with recording(self._architecture.blocks, self._feed_forwards) as seen:
            normed = self.model(**arguments, return_dict=True).last_hidden_state
        pool = Pooling(attention_mask)
        give: Mapping[str, Callable[[int], Tensor]] = {
            "state": lambda layer: seen.states[layer],
            "last": lambda layer: pool.last(seen.states[layer]),
            "mean": lambda layer: pool.mean(seen.states[layer]),
            "final_norm": lambda _: normed,
            "final_norm_last": lambda _: pool.last(normed),
            "final_norm_mean": lambda _: pool.mean(normed),
            "mlp_mean": lambda layer: pool.mean(seen.mlp[layer - 1]),
        }
        return tuple(give[card.kind](card.layer) for card in self._outputs)
