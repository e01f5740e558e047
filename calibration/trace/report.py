"""A summary laid out: tables for a terminal, and a page of HTML with plots on its own."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from layerguard.calibration.charts import Line, bar_chart, heat_map, line_chart
from layerguard.calibration.page import page, paragraph, section, table
from layerguard.calibration.trace.masks import Mask
from layerguard.calibration.trace.prompt import PromptTrace
from layerguard.calibration.trace.rows import Prompt
from layerguard.calibration.trace.summary import Mean, Summary
from layerguard.runtime.cli.table import render, shorten

_MOST_MAPPED = 60
"""Prompts in the heat map; more would be thinner than their labels."""

_ALIKE_NATS = 1e-6
"""Mean divergences that differ by no more are the same one, rounded."""

_PROMPT_HEADER = (
    "prompt", "target", "p(target)", "largest ratio", "first rise", "most vulnerable",
)  # fmt: skip
_LAYER_HEADER = (
    "layer", "p(target)", "95 %", "ratio", "largest ratio", "first rise",
    "JS nats", "95 %", "most vulnerable",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Named:
    """A trace, its prompt, and its target in letters."""

    prompt: Prompt
    target: str
    trace: PromptTrace

    def to_json(self) -> dict[str, Any]:
        """One line of JSON; lists of L + 1 values begin at layer 0, lists of L at layer 1."""
        trace = self.trace
        return {
            "id": self.prompt.id,
            "tokens": len(self.prompt.ids),
            "truncated": self.prompt.truncated,
            "target": {"id": trace.target, "text": self.target},
            "probability": trace.probability.tolist(),
            "ratio": trace.ratio.tolist(),
            "divergence_nats": trace.divergence_nats.tolist(),
            "max_ratio_layer": trace.max_ratio_layer,
            "first_rise_layer": trace.first_rise_layer,
            "vulnerable_layer": trace.vulnerable_layer,
        }


def prompt_table(named: Sequence[Named]) -> str:
    """One line a prompt."""
    return render(_PROMPT_HEADER, list(map(_prompt_cells, named)))


def layer_table(summary: Summary) -> str:
    """One line a layer: means over prompts, and how many prompts chose it."""
    return render(_LAYER_HEADER, list(_layer_rows(summary)))


def findings(summary: Summary, mask: Mask) -> Iterator[str]:
    """What the summary comes to, in sentences."""
    risen = summary.prompts - summary.never_rises
    if risen:
        yield (
            f"The target's probability first rises significantly at layer {_median(summary)} of "
            f"{len(summary.first_rise_counts)} (median of the {risen} prompts, of "
            f"{summary.prompts}, where it does)."
        )
    else:
        yield "The target's probability rises significantly at no layer of any prompt."
    if np.ptp(summary.divergence_nats.value) <= _ALIKE_NATS:
        yield (
            f"Masking moves the output alike whichever layer is masked (mask {mask.mode}), so none "
            "is most vulnerable. Try another --mask; the help says more."
        )
    else:
        yield (
            f"Masking layer {summary.vulnerable_layer} moves the output most (mask {mask.mode}; "
            f"the same layer in {100 * summary.vulnerable_share:.0f} % of bootstrap resamples)."
        )
    yield (
        f"Layer robustness {summary.layer_robustness:.3f}: 1 - mean divergence / ln 2. Ours, not "
        "the paper's LRS."
    )
    yield (
        f"Suggested: layerguard export --layers {summary.suggested_layers}, the fewest blocks "
        "that hold the vulnerable layer and most prompts' first rise and largest ratio."
    )
    if summary.prompts == 1:
        yield "One prompt only: the intervals say nothing. Give rows with --input."


def html_page(title: str, named: Sequence[Named], summary: Summary, mask: Mask) -> str:
    """Everything as one page that stands alone."""
    layers = [str(layer) for layer in range(1, len(summary.max_ratio_counts) + 1)]
    mapped = named[:_MOST_MAPPED]
    share = "" if len(mapped) == len(named) else f" (first {len(mapped)} of {len(named)} prompts)"
    return page(
        title,
        section("Findings", *map(paragraph, findings(summary, mask))),
        section(
            "Where the answer forms",
            line_chart(
                "Probability of the target",
                [_line("mean over prompts", summary.probability)],
                x_label="layer",
                y_label="probability",
            ),
            _histogram("First significant rise", layers, summary.first_rise_counts.tolist()),
            _histogram(
                "Largest ratio to the layer before", layers, summary.max_ratio_counts.tolist()
            ),
            heat_map(
                f"Probability of the target{share}",
                [shorten(item.prompt.id, 9) for item in mapped],
                ["0", *layers],
                np.stack([item.trace.probability for item in mapped]),
                x_label="layer",
                unit="probability",
            ),
        ),
        section(
            "Which layer is fragile",
            line_chart(
                f"Divergence of the output, one layer masked ({mask.mode})",
                [_line("mean over prompts", summary.divergence_nats)],
                x_label="masked layer",
                y_label="nats",
                first=1,
            ),
            _histogram("Most vulnerable layer", layers, summary.vulnerable_counts.tolist()),
        ),
        section("By layer", table(_LAYER_HEADER, list(_layer_rows(summary)))),
        section("By prompt", table(_PROMPT_HEADER, list(map(_prompt_cells, named)))),
    )


def _prompt_cells(named: Named) -> list[str]:
    trace = named.trace
    rise = "-" if trace.first_rise_layer is None else str(trace.first_rise_layer)
    return [
        named.prompt.id,
        repr(named.target),
        f"{trace.probability[-1]:.4f}",
        str(trace.max_ratio_layer),
        rise,
        str(trace.vulnerable_layer),
    ]


def _layer_rows(summary: Summary) -> Iterator[list[str]]:
    probability, divergence = summary.probability, summary.divergence_nats
    yield ["0", f"{probability.value[0]:.2e}", _interval(probability, 0, ".1e"), *["-"] * 6]
    for i in range(len(divergence.value)):
        yield [
            str(i + 1),
            f"{probability.value[i + 1]:.2e}",
            _interval(probability, i + 1, ".1e"),
            f"{summary.median_ratio[i]:.3g}",
            str(summary.max_ratio_counts[i]),
            str(summary.first_rise_counts[i]),
            f"{divergence.value[i]:.4f}",
            _interval(divergence, i, ".3f"),
            str(summary.vulnerable_counts[i]),
        ]


def _interval(mean: Mean, index: int, form: str) -> str:
    return f"{mean.low[index]:{form}}..{mean.high[index]:{form}}"


def _line(name: str, mean: Mean) -> Line:
    return Line(name, mean.value.tolist(), mean.low.tolist(), mean.high.tolist())


def _histogram(title: str, layers: Sequence[str], counts: Sequence[float]) -> str:
    return bar_chart(title, layers, counts, x_label="layer", y_label="prompts")


def _median(summary: Summary) -> int:
    """The median first rise of the prompts that have one; the lower of two."""
    total = summary.first_rise_counts.sum()
    return int((2 * summary.first_rise_counts.cumsum() >= total).argmax()) + 1
