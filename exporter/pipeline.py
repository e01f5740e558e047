"""One model, one bundle: load, examine, run in PyTorch, trace, write, prove, seal."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from torch import nn
from tqdm import tqdm

from layerguard.exporter import graph as onnx_graph
from layerguard.exporter.architecture import Architecture, examine, feed_forwards
from layerguard.exporter.loading import Loaded, Source, load
from layerguard.exporter.outputs import Mode, plan
from layerguard.exporter.parity import GATES, Comparison, Dtype, compare, make_cases, reference
from layerguard.exporter.precision import halve, quantize
from layerguard.exporter.tokenizer import TextFiles, read_tokenizer
from layerguard.exporter.wrapper import Reader
from layerguard.runtime.bundle.files import GRAPH, WEIGHTS
from layerguard.runtime.bundle.manifest import (
    SCHEMA,
    GraphCard,
    Manifest,
    ModelCard,
    OutputCard,
    Parity,
    TextRules,
)
from layerguard.runtime.bundle.write import replacing, seal
from layerguard.runtime.errors import ExportError
from layerguard.runtime.session import load_onnxruntime

_LIBRARIES = ("layerguard", "torch", "transformers", "optimum", "onnx", "onnxscript")
_UNBOUNDED_TOKENS = 2048
"""Longest row where neither the model nor its tokenizer bounds the text."""
_LEAST_TOKENS = 8
_STEPS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to export; the defaults suit a guard.

    Attributes:
        mode: ``pooled`` pools inside the graph; ``states`` gives every token's states.
        dtype: ``float32``, ``float16``, or ``int8`` weights with dynamic quantisation.
        layers: keep the first so many blocks; None keeps all.
        mlp: also give the mean feed-forward output of each block.
        max_tokens: longest row that the guard will read; None: what model and tokenizer allow.
        template: a text with {prompt} in it, or ``chat``; None: the chat template of a decoder
            that has one, else the bare prompt.
        windows: what becomes of longer texts; see ``TextRules``.
        max_windows: most windows of one text where ``windows`` is ``sliding``.
        id: name of the model in the manifest; None: the hub id or the folder's name.
        revision: of a hub model.
        trust_remote_code: run code that comes with the model.
    """

    mode: Mode = "pooled"
    dtype: Dtype = "float32"
    layers: int | None = None
    mlp: bool = False
    max_tokens: int | None = None
    template: str | None = None
    windows: Literal["head-tail", "sliding"] = "head-tail"
    max_windows: int = 8
    id: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False


def export(source: str, out: Path, options: Options | None = None) -> tuple[Manifest, Comparison]:
    """Export the model ``source`` (a folder or hub id) as the bundle ``out``.

    Returns:
        The manifest as written, and what the proof measured.

    Raises:
        ExportError: the model cannot be exported, or the graph is not the model. ``out`` is then
            as it was before.
        InputError: ``out`` cannot be written.
    """
    options = options or Options()
    origin = Source(source, options.revision, options.trust_remote_code)
    with replacing(out) as folder, _progress() as step:
        step("loading the model")
        loaded = load(origin)
        architecture = examine(loaded.model)
        layers = _kept_layers(architecture, options.layers)
        pad = getattr(loaded.model.config, "pad_token_id", None)
        text = read_tokenizer(origin, architecture.vocabulary, pad)
        rules = _text_rules(architecture, text, options)
        mlps = feed_forwards(architecture)[:layers] if options.mlp else ()
        whole = layers == architecture.layers
        outputs = plan(
            options.mode, layers, final_norm=whole and architecture.final_norm, mlp=options.mlp
        )
        step("running it in PyTorch")
        cases = make_cases(architecture, text.pad_token_id)
        expected = reference(architecture, cases, outputs, mlps)
        step("tracing it for ONNX")
        write_graph(folder, architecture, outputs, mlps, options.dtype, loaded.missing)
        step("comparing the graph with PyTorch")
        session = load_onnxruntime().InferenceSession(
            str(folder / GRAPH), providers=["CPUExecutionProvider"]
        )
        comparison = compare(session, cases, expected, outputs)
        comparison.decide(options.dtype)
        step("writing the bundle")
        text.save(folder)
        manifest = Manifest(
            schema=SCHEMA,
            model=_model_card(
                options.id or origin.label, loaded, architecture, layers, options.dtype
            ),
            text=rules,
            graphs={
                "score": GraphCard(
                    file=GRAPH,
                    mode=options.mode,
                    opset=onnx_graph.OPSET,
                    inputs=onnx_graph.INPUTS,
                    outputs=outputs,
                    parity=Parity(
                        tolerance=GATES[options.dtype].limit,
                        shapes=comparison.shapes,
                        largest=dict(comparison.decisive(options.dtype)),
                    ),
                )
            },
            files={},
            versions={
                **{name: version(name) for name in _LIBRARIES},
                "onnxruntime": load_onnxruntime().__version__,  # its package has several names
            },
        )
        return seal(folder, manifest), comparison


def write_graph(
    folder: Path,
    architecture: Architecture,
    outputs: Sequence[OutputCard],
    feed_forwards: Sequence[nn.Module],
    dtype: Dtype,
    missing: frozenset[str] = frozenset(),
) -> None:
    """Write ``score.onnx`` and ``weights.data``; a float16 export leaves the model in float16.

    Args:
        folder: where to.
        architecture: the backbone.
        outputs: what the graph gives.
        feed_forwards: of the first blocks, where an output reads them.
        dtype: of the graph's weights.
        missing: parameters that the checkpoint does not hold; no output may depend on them.
    """
    if dtype == "float16":
        halve(architecture.model)
    program = onnx_graph.trace(Reader(architecture, outputs, feed_forwards).eval())
    absent = sorted(onnx_graph.used_parameters(program) & missing)
    if absent:
        raise ExportError(
            f"the checkpoint lacks {len(absent)} parameters that the states depend on, first "
            f"{absent[0]}; expected all weights of {type(architecture.model).__name__}. Check that "
            "the weights belong to this config.json"
        )
    model = onnx_graph.convert(program, [card.name for card in outputs])
    if dtype != "int8":
        onnx_graph.save(model, folder / GRAPH, WEIGHTS)
        return
    with TemporaryDirectory(dir=folder) as temporary:
        full, small = Path(temporary) / "full.onnx", Path(temporary) / "small.onnx"
        onnx_graph.save(model, full, "full.data")
        onnx_graph.save(quantize(full, small), folder / GRAPH, WEIGHTS)


def _kept_layers(architecture: Architecture, wanted: int | None) -> int:
    if wanted is None:
        return architecture.layers
    if not 1 <= wanted <= architecture.layers:
        raise ExportError(
            f"layers {wanted}: the model has {architecture.layers} blocks; expected 1 to "
            f"{architecture.layers}"
        )
    return wanted


def _text_rules(architecture: Architecture, text: TextFiles, options: Options) -> TextRules:
    bounds = [n for n in (architecture.max_positions, text.max_tokens) if n is not None]
    most = min(bounds, default=_UNBOUNDED_TOKENS)
    tokens = most if options.max_tokens is None else options.max_tokens
    if not _LEAST_TOKENS <= tokens <= (architecture.max_positions or tokens):
        raise ExportError(
            f"max tokens {tokens}: the model takes {architecture.max_positions or 'any number'}; "
            f"expected at least {_LEAST_TOKENS} and no more than that"
        )
    if options.max_windows < 1:
        raise ExportError(f"max windows {options.max_windows}; expected at least 1")
    has_chat = text.chat_template is not None
    template = options.template
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
        windows=options.windows,
        max_tokens=tokens,
        max_windows=options.max_windows,
        pad_token_id=text.pad_token_id,
        special_tokens=text.special_tokens,
    )


def _model_card(
    name: str, loaded: Loaded, architecture: Architecture, layers: int, dtype: Dtype
) -> ModelCard:
    return ModelCard(
        id=name,
        revision=loaded.revision,
        architecture=type(loaded.model).__name__,
        model_type=loaded.model.config.model_type,
        kind=architecture.kind,
        layers=layers,
        total_layers=architecture.layers,
        width=architecture.width,
        vocabulary=architecture.vocabulary,
        dtype=dtype,
    )


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """A bar on a terminal, nothing in a pipe; call what it yields at the start of each step."""
    with tqdm(total=_STEPS, disable=None, leave=False, bar_format="{l_bar}{bar}| {elapsed}") as bar:
        begun = 0

        def step(words: str) -> None:
            nonlocal begun
            bar.update(1 if begun else 0)
            bar.set_description(words)
            begun += 1

        yield step
