"""One model, one bundle: load, examine, run in PyTorch, trace, write, prove, seal."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from layerguard.exporter.graph import convert as onnx_graph
from layerguard.exporter.graph.analysis import analysis_part
from layerguard.exporter.graph.decode import decode_part
from layerguard.exporter.graph.outputs import Mode
from layerguard.exporter.graph.part import Part
from layerguard.exporter.graph.precision import halve, quantize
from layerguard.exporter.graph.score import score_part
from layerguard.exporter.graph.weights import SharedWeights
from layerguard.exporter.loading.architecture import Architecture, examine, feed_forwards
from layerguard.exporter.loading.checkpoint import Loaded, Source, load
from layerguard.exporter.progress import LENS, Progress, ignore, progress, steps
from layerguard.exporter.proof.comparison import GATES, Comparison, Dtype
from layerguard.exporter.proof.reference import References
from layerguard.exporter.text.chat_forms import refused_forms
from layerguard.exporter.text.rules import text_rules
from layerguard.exporter.text.tokenizer import read_tokenizer
from layerguard.runtime.bundle.manifest import SCHEMA, GraphCard, Manifest, ModelCard, Parity
from layerguard.runtime.bundle.write import replacing, seal
from layerguard.runtime.errors import ExportError
from layerguard.runtime.model.session import load_onnxruntime

_LIBRARIES = ("layerguard", "torch", "transformers", "optimum", "onnx", "onnxscript")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to export; the defaults suit a guard.

    Attributes:
        mode: ``pooled`` pools inside the graph; ``states`` gives every token's states.
        dtype: ``float32``, ``float16``, or ``int8`` weights with dynamic quantisation.
        layers: keep the first so many blocks; None keeps all.
        mlp: also give the mean feed-forward output of each block.
        decode: also a decode graph, which continues a text over a cache: ``auto`` where the model
            is a decoder that can have one, ``yes`` or fail, ``no``.
        analysis: also an analysis graph, which gives each layer's logits (decoders with a head).
        max_tokens: longest row that the guard will read; None: what model and tokenizer allow.
        template: a text with {prompt} in it, or ``chat``; None: the chat template of a decoder
            that has one, else the bare prompt.
        windows: what becomes of longer texts; see ``TextRules``.
        max_windows: most windows of one text where ``windows`` is ``sliding``.
        adapter: folder of a LoRA adapter to merge into the weights.
        id: name of the model in the manifest; None: the hub id or the folder's name, and ``+`` the
            adapter's.
        revision: of a hub model.
        trust_remote_code: run code that comes with the model.
    """

    mode: Mode = "pooled"
    dtype: Dtype = "float32"
    layers: int | None = None
    mlp: bool = False
    decode: Literal["auto", "yes", "no"] = "auto"
    analysis: bool = False
    max_tokens: int | None = None
    template: str | None = None
    windows: Literal["head-tail", "sliding"] = "head-tail"
    max_windows: int = 8
    adapter: Path | None = None
    id: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export made.

    Attributes:
        manifest: as written.
        proofs: by graph, how far it is from PyTorch.
        skipped: graphs that this model cannot have, by name, and why.
        refused: forms of chats that the chat template refuses, and its words.
        notes: what else the report says.
    """

    manifest: Manifest
    proofs: Mapping[str, Comparison]
    skipped: Mapping[str, str]
    refused: Mapping[str, str]
    notes: tuple[str, ...] = ()


def export(source: str, out: Path, options: Options | None = None) -> Exported:
    """Export the model ``source`` (a folder, GGUF file or hub id) as the bundle ``out``.

    Raises:
        ExportError: the model cannot be exported, or a graph is not the model. ``out`` is then as
            it was before.
        InputError: ``out`` cannot be written.
    """
    options = options or Options()
    origin = Source(source, options.revision, options.trust_remote_code, options.adapter)
    with replacing(out) as folder, progress(steps(_wished(options))) as at:
        at.step("loading the model")
        loaded = load(origin)
        architecture = examine(loaded.model)
        layers = _kept_layers(architecture, options.layers)
        pad = getattr(loaded.model.config, "pad_token_id", None)
        text = read_tokenizer(origin, architecture.vocabulary, pad)
        rules = text_rules(
            loaded,
            architecture,
            text,
            template=options.template,
            windows=options.windows,
            max_tokens=options.max_tokens,
            max_windows=options.max_windows,
        )
        is_chat = rules.template == "chat"
        refused = refused_forms(text.chat_template or "", text.special_tokens) if is_chat else {}
        architecture = architecture.within(rules.max_tokens)
        pad, mlps = text.pad_token_id, feed_forwards(architecture)[:layers] if options.mlp else ()
        references = References(architecture, loaded.causal, mlps)
        parts = {"score": score_part(architecture, options.mode, layers, pad, references, mlps)}
        skipped: dict[str, str] = {}
        if options.decode == "yes" or (options.decode == "auto" and architecture.kind == "decoder"):
            with _skipping("decode", options, skipped):
                parts["decode"] = decode_part(
                    loaded, architecture, layers, options.dtype, pad, references
                )
        if options.analysis:
            at.step(LENS)
            parts["analysis"] = analysis_part(loaded, architecture, layers, pad, at.tick)
        at.plan(steps(list(parts)))
        at.step("running it in PyTorch")
        references.run(at.tick)  # in the checkpoint's precision, before it becomes the graph's
        if options.dtype == "float16":
            halve(loaded.causal or loaded.model)
        weights = SharedWeights(folder)
        cards, proofs = {}, {}
        for name, part in parts.items():
            file = f"{name}.onnx"
            with _skipping(name, options, skipped), weights.trial(file):
                write_graph(part, folder, file, weights, options.dtype, loaded.missing, at)
                at.step(f"comparing the {name} graph with PyTorch")
                proof = part.prove(_open(folder / file), tick=at.tick)
                proof.decide(options.dtype)
                proofs[name] = proof
                cards[name] = _graph_card(file, part, proof, options.dtype)
        at.step("writing the bundle")
        text.save(folder)
        manifest = Manifest(
            schema=SCHEMA,
            model=_model_card(
                options.id or origin.label, loaded, architecture, layers, options.dtype
            ),
            text=rules,
            graphs=cards,
            files={},
            versions={
                **{name: version(name) for name in _LIBRARIES},
                "onnxruntime": load_onnxruntime().__version__,  # its package has several names
            },
        )
        notes = () if text.note is None else (text.note,)
        return Exported(seal(folder, manifest), proofs, skipped, refused, notes)


def _open(graph: Path) -> Any:
    """A session on the written file.

    Raises:
        ExportError: ONNX Runtime does not take it.
    """
    try:
        return load_onnxruntime().InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises many types of its own
        raise ExportError(
            f"onnxruntime does not load the exported {graph.name} "
            f"({onnx_graph.first_line(error)}); expected opset {onnx_graph.OPSET}. Try other "
            "versions of onnxruntime, torch and onnxscript"
        ) from error


@contextmanager
def _skipping(name: str, options: Options, skipped: dict[str, str]) -> Iterator[None]:
    """Where a decode graph is wished and not demanded, note why it cannot be and go on."""
    try:
        yield
    except ExportError as error:
        if name != "decode" or options.decode == "yes":
            raise
        skipped[name] = str(error)


def write_graph(
    part: Part,
    folder: Path,
    name: str,
    weights: SharedWeights,
    dtype: Dtype = "float32",
    missing: frozenset[str] = frozenset(),
    at: Progress | None = None,
) -> None:
    """Trace a part and write it as the file ``name``.

    Args:
        part: its module already in float16 where the graph shall be.
        folder: where to.
        name: of the graph's file.
        weights: of the same folder.
        dtype: ``int8`` quantises the graph.
        missing: parameters that the checkpoint does not hold; no output may depend on them.
        at: where to say how far it is.

    Raises:
        ExportError: the module cannot be traced or converted, or depends on what is missing.
    """
    tick = at.tick if at else ignore
    graph = Path(name).stem
    _begin(at, f"tracing the {graph} graph")
    program = onnx_graph.trace(part, tick)
    absent = sorted(onnx_graph.used_parameters(program) & missing)
    if absent:
        raise ExportError(
            f"the checkpoint lacks {len(absent)} parameters that the states depend on, first "
            f"{absent[0]}; expected all weights of the model. Check that the weights belong to "
            "this config.json"
        )
    _begin(at, f"converting the {graph} graph to ONNX")
    model = onnx_graph.convert(program, part, tick)
    del program
    _begin(at, f"writing the {graph} graph")
    if dtype != "int8":
        weights.save(model, name, tick)
        return
    with TemporaryDirectory(dir=folder) as temporary:
        weights.save(quantize(model, Path(temporary)), name, tick)


def _begin(at: Progress | None, step: str) -> None:
    if at is not None:
        at.step(step)


def _wished(options: Options) -> list[str]:
    """Names of the graphs that the options ask for."""
    return [
        "score", *["decode"] * (options.decode != "no"), *["analysis"] * options.analysis
    ]  # fmt: skip


def _kept_layers(architecture: Architecture, wanted: int | None) -> int:
    if wanted is None:
        return architecture.layers
    if not 1 <= wanted <= architecture.layers:
        raise ExportError(
            f"layers {wanted}: the model has {architecture.layers} blocks; expected 1 to "
            f"{architecture.layers}"
        )
    return wanted


def _graph_card(file: str, part: Part, proof: Comparison, dtype: Dtype) -> GraphCard:
    return GraphCard(
        file=file,
        mode=part.mode,
        opset=onnx_graph.OPSET,
        inputs=tuple(item.name for item in part.inputs),
        outputs=part.outputs,
        parity=Parity(
            tolerance=GATES[dtype].limit,
            shapes=proof.shapes,
            largest=dict(proof.decisive(dtype)),
            rounding=dict(proof.rounding) if GATES[dtype].measure == "difference" else {},
        ),
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
        quantisation=loaded.quantisation,
    )
