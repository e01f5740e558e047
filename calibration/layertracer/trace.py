"""Trace the layers where a model forms its answers, and find its fragile layers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from layerguard.calibration.layertracer.curves import Rise
from layerguard.calibration.layertracer.graph import AnalysisGraph
from layerguard.calibration.layertracer.masks import Mask
from layerguard.calibration.layertracer.prompt_reader import PromptReader
from layerguard.calibration.layertracer.prompt_trace import trace_prompt
from layerguard.calibration.layertracer.summary import COVER, Summary, check_cover, summarize
from layerguard.calibration.layertracer.traced_prompt import TracedPrompt
from layerguard.calibration.notify import silent
from layerguard.calibration.rows.sources import RowSources, read_sources
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.errors import InputError
from layerguard.runtime.model.session import Device
from layerguard.runtime.rows.jsonl import Row

Target = Literal["row", "model"]


@dataclass(frozen=True, slots=True)
class Trace:
    """The traces of all prompts.

    Attributes:
        bundle_id: id of the bundle.
        model_id: id of its model.
        prompts: the traced prompts, in the order of the rows.
        summary: the summary of the traced prompts; None if there are none.
        faults: one message for each row that could not be traced.
    """

    bundle_id: str
    model_id: str
    prompts: tuple[TracedPrompt, ...]
    summary: Summary | None
    faults: tuple[str, ...]


def trace(
    bundle: str | Path,
    rows: RowSources,
    *,
    target: Target = "row",
    mask: Mask | None = None,
    rise: Rise | None = None,
    cover: float = COVER,
    device: Device = "cpu",
    threads: int = 0,
    on_prompt: Callable[[TracedPrompt], object] = silent,
) -> Trace:
    """Follow a token's probability through the layers, and mask one layer at a time.

    Args:
        bundle: folder of a bundle with an analysis graph, or name of an installed one.
        rows: files or rows of prompts.
        target: ``row`` follows the first token of the row's target or response if it has one;
            ``model`` always follows the model's most probable next token.
        mask: how a layer is masked; None for the default.
        rise: definition of a significant rise; None for the default.
        cover: share of the prompts whose first rise and largest ratio lie within the suggested
            layers, above 0 and at most 1.
        device: where the graph runs.
        threads: threads of one operator; 0 lets ONNX Runtime choose.
        on_prompt: called with each traced prompt as soon as it is known.

    Raises:
        InputError: a file cannot be opened, or ``cover`` is not above 0 and at most 1.
        BundleError: the bundle is invalid, or has no analysis graph.
    """
    mask, rise = mask or Mask(), rise or Rise()
    check_cover(cover)
    read = read_sources(rows)
    faults = list(read.faults)
    opened = Bundle.load(Path(bundle))
    graph = AnalysisGraph(opened, device, threads)
    traced = []
    for prompt in _traces(PromptReader(opened), graph, read.good, faults, target, mask, rise):
        traced.append(prompt)
        on_prompt(prompt)
    summary = summarize([prompt.trace for prompt in traced], cover) if traced else None
    model_id = opened.manifest.model.id
    return Trace(opened.id, model_id, tuple(traced), summary, tuple(faults))


def _traces(
    reader: PromptReader,
    graph: AnalysisGraph,
    rows: Sequence[Row],
    faults: list[str],
    target: Target,
    mask: Mask,
    rise: Rise,
) -> Iterator[TracedPrompt]:
    """Yield the traces in the rows' order; add a message to ``faults`` for each other row."""
    disable = None if len(rows) > 1 else True
    for row in tqdm(rows, desc="tracing", unit="prompt", disable=disable):
        try:
            prompt = reader.read(row)
            target_id = prompt.target if target == "row" else None
            traced = trace_prompt(graph, prompt.ids, target_id, mask=mask, rise=rise)
        except InputError as error:
            faults.append(f"{row.place}: {error}")
            continue
        yield TracedPrompt(prompt, reader.spell(traced.target), traced)
