"""The summary of many traces: mean curves, histograms, and a suggested number of layers."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from layerguard.calibration.layertracer.divergence import layer_robustness
from layerguard.calibration.layertracer.prompt_trace import PromptTrace
from layerguard.runtime.errors import InputError
from layerguard.runtime.types import Array

COVER = 0.9
"""Default share of the prompts whose task particle lies within ``suggested_layers``."""

_RESAMPLES = 1_000
_TAILS = (2.5, 97.5)
"""Percentiles of the 95 % percentile bootstrap intervals over prompts (Efron and Tibshirani, "An
Introduction to the Bootstrap", section 13.3)."""


@dataclass(frozen=True, slots=True, eq=False)
class Mean:
    """A mean over prompts and its 95 % interval, float64 [layers] each; equal for one prompt."""

    value: Array
    low: Array
    high: Array


@dataclass(frozen=True, slots=True, eq=False)
class Summary:
    """The summary of all prompts; an array of length L starts at layer 1.

    Attributes:
        prompts: number of prompts.
        probability: probability of the target at layers 0..L.
        median_ratio: float64 [L], median over prompts.
        divergence_nats: divergence at layers 1..L.
        max_ratio_counts: int64 [L], number of prompts with their largest ratio at the layer.
        first_rise_counts: int64 [L], number of prompts with their first significant rise there.
        never_rises: number of prompts without a significant rise.
        vulnerable_counts: int64 [L], number of prompts whose output the layer's mask changes most.
        vulnerable_layer: layer with the largest mean divergence.
        vulnerable_share: share of bootstrap resamples with the same vulnerable layer.
        layer_robustness: 1 - mean divergence / ln 2; not the paper's LRS.
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
    """Summarize the traces of one model; equal traces give bitwise equal summaries.

    Args:
        traces: one or more traces.
        cover: see ``suggest_layers``.

    Raises:
        InputError: ``cover`` is not above 0 and at most 1.
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
    """Suggest how many blocks a bundle should keep, by a simple rule of this project.

    The result is the smallest N such that the first N blocks contain the vulnerable layer and, for
    at least the share ``cover`` of the prompts, the largest ratio and the first rise.

    Args:
        traces: one or more traces.
        vulnerable_layer: 1..L.
        cover: share above 0 and at most 1.
    """
    check_cover(cover)
    particles = sorted(max(t.max_ratio_layer, t.first_rise_layer or 0) for t in traces)
    held = np.arange(1, len(traces) + 1) / len(traces) >= cover
    return max(vulnerable_layer, particles[int(held.argmax())])


def check_cover(cover: float) -> None:
    """Refuse a share that is out of range.

    Raises:
        InputError: ``cover`` is not above 0 and at most 1.
    """
    if not 0 < cover <= 1:
        raise InputError(f"cover: found {cover}; expected a share above 0 and at most 1")


def _counts(chosen: Iterable[int], layers: int) -> Array:
    """How often each of 1..L occurs in ``chosen``, int64 [L]."""
    return np.bincount(list(chosen), minlength=layers + 1)[1:]


def _mean(values: Array) -> tuple[Mean, Array]:
    """The mean of [prompts, layers] over prompts, and of each resample, [resamples, layers]."""
    prompts = len(values)
    rng = np.random.default_rng(0)
    drawn = (rng.multinomial(prompts, [1 / prompts] * prompts) for _ in range(_RESAMPLES))
    resampled = np.stack([weights @ values / prompts for weights in drawn])
    low, high = np.percentile(resampled, _TAILS, axis=0)
    return Mean(values.mean(axis=0), low, high), resampled


def _plain(value: Any) -> Any:
    """``value`` with every array converted to a list."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value
