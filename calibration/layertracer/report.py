"""A summary as tables for a terminal and as an HTML page with charts."""

from collections.abc import Iterator, Sequence

import numpy as np

from layerguard.calibration.layertracer.masks import Mask
from layerguard.calibration.layertracer.summary import Mean, Summary
from layerguard.calibration.layertracer.traced_prompt import TracedPrompt
from layerguard.calibration.report.charts import Chart, Line, bar_chart, heat_map, line_chart
from layerguard.calibration.report.page import Paragraph, Section, Table, page
from layerguard.runtime.cli.table import render, shorten

_MAX_MAPPED = 60
"""Most prompts in the heat map; with more, the rows would be thinner than their labels."""

_EQUAL_NATS = 1e-6
"""Mean divergences that differ by at most this much count as equal."""

_PROMPT_HEADER = (
    "prompt", "target", "p(target)", "largest ratio", "first rise", "most vulnerable",
)  # fmt: skip
_LAYER_HEADER = (
    "layer", "p(target)", "95 %", "ratio", "largest ratio", "first rise",
    "JS nats", "95 %", "most vulnerable",
)  # fmt: skip


def prompt_table(prompts: Sequence[TracedPrompt]) -> str:
    """A table with one line for each prompt."""
    return render(_PROMPT_HEADER, list(map(_prompt_cells, prompts)))


def layer_table(summary: Summary) -> str:
    """A table with one line for each layer: means over prompts, and counts of prompts."""
    return render(_LAYER_HEADER, list(_layer_rows(summary)))


def findings(summary: Summary, mask: Mask) -> Iterator[str]:
    """The findings of the summary, in sentences."""
    risen = summary.prompts - summary.never_rises
    if risen:
        yield (
            f"The target's probability first rises significantly at layer {_median(summary)} of "
            f"{len(summary.first_rise_counts)} (median of the {risen} prompts, of "
            f"{summary.prompts}, where it does)."
        )
    else:
        yield "The target's probability rises significantly at no layer of any prompt."
    if np.ptp(summary.divergence_nats.value) <= _EQUAL_NATS:
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


def html_page(title: str, prompts: Sequence[TracedPrompt], summary: Summary, mask: Mask) -> str:
    """All results as one self-contained HTML page."""
    layers = [str(layer) for layer in range(1, len(summary.max_ratio_counts) + 1)]
    mapped = prompts[:_MAX_MAPPED]
    share = (
        "" if len(mapped) == len(prompts) else f" (first {len(mapped)} of {len(prompts)} prompts)"
    )
    forms: list[Chart] = [
        line_chart(
            "Probability of the target",
            [_line("mean over prompts", summary.probability)],
            x_label="layer",
            y_label="probability",
        ),
        _histogram("First significant rise", layers, summary.first_rise_counts.tolist()),
        _histogram("Largest ratio to the layer before", layers, summary.max_ratio_counts.tolist()),
        heat_map(
            f"Probability of the target{share}",
            [shorten(item.prompt.id, 9) for item in mapped],
            ["0", *layers],
            np.stack([item.trace.probability for item in mapped]),
            x_label="layer",
            unit="probability",
        ),
    ]
    fragile: list[Chart] = [
        line_chart(
            f"Divergence of the output, one layer masked ({mask.mode})",
            [_line("mean over prompts", summary.divergence_nats)],
            x_label="masked layer",
            y_label="nats",
            first=1,
        ),
        _histogram("Most vulnerable layer", layers, summary.vulnerable_counts.tolist()),
    ]
    by_layer, by_prompt = list(_layer_rows(summary)), list(map(_prompt_cells, prompts))
    return page(
        title,
        [
            Section("Findings", [Paragraph(sentence) for sentence in findings(summary, mask)]),
            Section("Where the answer forms", forms),
            Section("Which layer is fragile", fragile),
            Section("By layer", [Table(_LAYER_HEADER, by_layer)]),
            Section("By prompt", [Table(_PROMPT_HEADER, by_prompt, text_columns=(0, 1))]),
        ],
    )


def _prompt_cells(traced: TracedPrompt) -> list[str]:
    trace = traced.trace
    rise = "-" if trace.first_rise_layer is None else str(trace.first_rise_layer)
    return [
        traced.prompt.id,
        repr(traced.target_text),
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


def _histogram(title: str, layers: Sequence[str], counts: Sequence[float]) -> Chart:
    return bar_chart(title, layers, counts, x_label="layer", y_label="prompts")


def _median(summary: Summary) -> int:
    """The lower median of the first rises, over the prompts that have one."""
    total = summary.first_rise_counts.sum()
    return int((2 * summary.first_rise_counts.cumsum() >= total).argmax()) + 1
