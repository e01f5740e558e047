"""The traces of many prompts as one: mean curves, histograms, and what follows for the model."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from layerguard.calibration.trace.divergence import layer_robustness
from layerguard.calibration.trace.prompt import PromptTrace
from layerguard.runtime.errors import InputError
from layerguard.runtime.types import Array

COVER = 0.9
"""Share of the prompts whose task particle ``suggested_layers`` holds, unless told otherwise."""

_RESAMPLES = 1_000
_TAILS = (2.5, 97.5)
"""Per cent: the intervals are 95 % percentile bootstrap intervals over prompts (Efron and
Tibshirani, "An Introduction to the Bootstrap", section 13.3)."""


@dataclass(frozen=True, slots=True, eq=False)
class Mean:
    """A mean over prompts and its 95 % interval, float64 [layers] each; of one prompt, itself."""

    value: Array
    low: Array
    high: Array


@dataclass(frozen=True, slots=True, eq=False)
class Summary:
    """What all prompts show together; an array of L counts or values starts at layer 1.

    Attributes:
        prompts: how many.
        probability: of the target, layers 0..L.
        median_ratio: float64 [L].
        divergence_nats: layers 1..L.
        max_ratio_counts: int64 [L], prompts whose ratio is largest at the layer.
        first_rise_counts: int64 [L], prompts whose first significant rise is there.
        never_rises: prompts that have none.
        vulnerable_counts: int64 [L], prompts whose output the layer's masking moves most.
        vulnerable_layer: where the mean divergence is largest.
        vulnerable_share: of the bootstrap's resamples in which it is that layer too.
        layer_robustness: 1 - mean divergence / ln 2. Ours, not the paper's LRS.
        suggested_layers: see ``suggest_layers``.
    """

    prompts: int
    probability: Mean
    median_ratio: Array
    divergence_nats: Mean
    max_ratio_counts: Array
    first_rise_counts: Array
    never_rises: int
    vulnerable_counts: Array
    vulnerable_layer: int
    vulnerable_share: float
    layer_robustness: float
    suggested_layers: int

    def to_json(self) -> dict[str, Any]:
        """The summary as plain JSON types."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain


def summarize(traces: Sequence[PromptTrace], cover: float = COVER) -> Summary:
    """All traces of one model as a summary; equal traces give equal summaries, to the bit.

    Args:
        traces: one or more.
        cover: see ``suggest_layers``.

    Raises:
        InputError: ``cover`` is no share.
    """
    divergence = np.stack([trace.divergence_nats for trace in traces])
    layers = divergence.shape[1]
    mean, resampled = _mean(divergence)
    vulnerable = int(mean.value.argmax()) + 1
    risen = [trace.first_rise_layer for trace in traces if trace.first_rise_layer is not None]
    return Summary(
        prompts=len(traces),
        probability=_mean(np.stack([trace.probability for trace in traces]))[0],
        median_ratio=np.median([trace.ratio for trace in traces], axis=0),
        divergence_nats=mean,
        max_ratio_counts=_counts((trace.max_ratio_layer for trace in traces), layers),
        first_rise_counts=_counts(risen, layers),
        never_rises=len(traces) - len(risen),
        vulnerable_counts=_counts((trace.vulnerable_layer for trace in traces), layers),
        vulnerable_layer=vulnerable,
        vulnerable_share=float((resampled.argmax(axis=1) + 1 == vulnerable).mean()),
        layer_robustness=layer_robustness(mean.value),
        suggested_layers=suggest_layers(traces, vulnerable, cover),
    )


def suggest_layers(traces: Sequence[PromptTrace], vulnerable_layer: int, cover: float) -> int:
    """How many blocks a bundle should keep: a rule of ours, simple enough to be argued with.

    The smallest N whose blocks hold the vulnerable layer and, for at least the share ``cover`` of
    the prompts, the task particle in both its readings.

    Args:
        traces: one or more.
        vulnerable_layer: 1..L.
        cover: see ``check_cover``.
    """
    check_cover(cover)
    particles = sorted(max(t.max_ratio_layer, t.first_rise_layer or 0) for t in traces)
    held = np.arange(1, len(traces) + 1) / len(traces) >= cover
    return max(vulnerable_layer, particles[int(held.argmax())])


def check_cover(cover: float) -> None:
    """Refuse what is no share.

    Raises:
        InputError: it is not above 0 and at most 1.
    """
    if not 0 < cover <= 1:
        raise InputError(f"cover: found {cover}; expected a share above 0 and at most 1")


def _counts(found: Iterable[int], layers: int) -> Array:
    """How often each of 1..L was found, int64 [L]."""
    return np.bincount(list(found), minlength=layers + 1)[1:]


def _mean(values: Array) -> tuple[Mean, Array]:
    """The mean of [prompts, layers] over prompts; and of each resample, [resamples, layers]."""
    prompts = len(values)
    rng = np.random.default_rng(0)
    drawn = (rng.multinomial(prompts, [1 / prompts] * prompts) for _ in range(_RESAMPLES))
    resampled = np.stack([weights @ values / prompts for weights in drawn])
    low, high = np.percentile(resampled, _TAILS, axis=0)
    return Mean(values.mean(axis=0), low, high), resampled


def _plain(value: Any) -> Any:
    """``value`` with every array as a list."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value
