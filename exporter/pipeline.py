"""The whole export: load a model, run it in PyTorch, write and check its graphs, seal a bundle."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from layerguard.exporter.graph import convert as onnx_graph
from layerguard.exporter.graph.analysis import analysis_graph
from layerguard.exporter.graph.decode import decode_graph
from layerguard.exporter.graph.outputs import Mode
from layerguard.exporter.graph.precision import halve, quantize
from layerguard.exporter.graph.score import score_graph
from layerguard.exporter.graph.spec import GraphSpec
from layerguard.exporter.graph.weights import SharedWeights
from layerguard.exporter.loading.architecture import Architecture, examine, feed_forwards
from layerguard.exporter.loading.checkpoint import LoadedModel, load
from layerguard.exporter.loading.source import ModelSource
from layerguard.exporter.progress import LENS, Progress, ignore, progress, steps
from layerguard.exporter.proof.differences import Proof
from layerguard.exporter.proof.reference import References
from layerguard.exporter.proof.tolerance import TOLERANCES, Dtype
from layerguard.exporter.text.chat_forms import refused_forms
from layerguard.exporter.text.rules import text_rules
from layerguard.exporter.text.tokenizer import read_tokenizer
from layerguard.runtime.bundle.manifest import SCHEMA, GraphCard, Manifest, ModelCard, Parity
from layerguard.runtime.bundle.write import replacing, seal
from layerguard.runtime.checkpoints.places import PARTS
from layerguard.runtime.errors import ExportError
from layerguard.runtime.model.session import load_onnxruntime

_LIBRARIES = ("layerguard", "torch", "transformers", "optimum", "onnx", "onnxscript")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of an export; the defaults suit a guard.

    Attributes:
        mode: ``pooled`` pools inside the graph; ``states`` gives the states of every token.
        dtype: ``float32``, ``float16``, or ``int8`` weights with dynamic quantisation.
        layers: number of blocks to keep, from the first; None keeps all.
        mlp: add the mean feed-forward output of each block.
        decode: add a decode graph, which continues a text with a cache: ``auto`` if the model
            supports it, ``yes`` or fail, ``no``.
        analysis: add an analysis graph, which gives each layer's logits (decoders with a head).
        max_tokens: longest row that the guard will read; None: what model and tokenizer allow.
        template: ``chat``, or a text that contains {prompt}; None: the chat template of a decoder
            if it has one, else {prompt}.
        windows: how longer texts are read; see ``TextRules``.
        max_windows: most windows of one text if ``windows`` is ``sliding``.
        adapter: folder of a LoRA adapter to merge into the weights; the graph also gives what its
            changes add.
        base: the model before it was tuned (folder, GGUF file or hub id), for the same outputs;
            not with ``adapter``, whose base is ``source``.
        id: name of the model in the manifest; None: the hub id or the name of the folder, with an
            adapter followed by ``+`` and its name.
        revision: branch, tag or commit of a hub model.
        trust_remote_code: run the code in the model's repository.
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
    base: str | None = None
    id: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False


@dataclass(frozen=True, slots=True)
class Exported:
    """The result of an export.

    Attributes:
        manifest: as written.
        proofs: by graph, how far it is from PyTorch.
        skipped: by name, the reason why the model cannot have this graph.
        refused: by form of chat, the error message of the chat template.
        notes: further lines for the report.
    """

    manifest: Manifest
    proofs: Mapping[str, Proof]
    skipped: Mapping[str, str]
    refused: Mapping[str, str]
    notes: tuple[str, ...] = ()


def export(source: str, out: Path, options: Options | None = None) -> Exported:
    """Export the model ``source`` (a folder, GGUF file or hub id) as the bundle ``out``.

    Raises:
        ExportError: the model cannot be exported, or a graph differs from it. ``out`` is then
            unchanged.
        InputError: ``out`` cannot be written.
    """
    options = options or Options()
    if options.adapter is not None and options.base is not None:
        raise ExportError(
            "found --adapter and --base; expected one of them: the base of an adapter is the model "
            "itself"
        )
    origin = ModelSource(
        source, options.revision, options.trust_remote_code, options.adapter, options.base
    )
    with replacing(out) as folder, progress(steps(_requested_graphs(options))) as bar:
        bar.step("loading the model")
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
        architecture = architecture.with_max_tokens(rules.max_tokens)
        pad, mlps = text.pad_token_id, feed_forwards(architecture)[:layers] if options.mlp else ()
        changes = [change for change in loaded.changes if change.place[0] < layers]
        references = References(architecture, loaded.causal, mlps, changes)
        specs = {
            "score": score_graph(architecture, options.mode, layers, pad, references, mlps, changes)
        }
        skipped: dict[str, str] = {}
        if options.decode == "yes" or (options.decode == "auto" and architecture.kind == "decoder"):
            with _skip_if_optional("decode", options, skipped):
                specs["decode"] = decode_graph(
                    loaded, architecture, layers, options.dtype, pad, references, changes
                )
        if options.analysis:
            bar.step(LENS)
            specs["analysis"] = analysis_graph(loaded, architecture, layers, pad, bar.tick)
        bar.plan(steps(list(specs)))
        bar.step("running it in PyTorch")
        references.run(bar.tick)  # before the weights become float16
        if options.dtype == "float16":
            halve(loaded.causal or loaded.model)
        weights = SharedWeights(folder)
        cards, proofs = {}, {}
        for name, spec in specs.items():
            file = f"{name}.onnx"
            with _skip_if_optional(name, options, skipped), weights.trial(file):
                write_graph(spec, folder, file, weights, options.dtype, loaded.missing, bar)
                bar.step(f"comparing the {name} graph with PyTorch")
                proof = spec.prove(_open(folder / file), tick=bar.tick)
                proof.check(options.dtype)
                proofs[name] = proof
                cards[name] = _graph_card(file, spec, proof, options.dtype)
        bar.step("writing the bundle")
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
        notes = [] if text.note is None else [text.note]
        if not changes and (options.adapter or options.base):
            notes.append(f"tuning changed no {' or '.join(PARTS)}: no output gives what it adds")
        return Exported(seal(folder, manifest), proofs, skipped, refused, tuple(notes))


def _open(graph: Path) -> Any:
    """Open the written file in ONNX Runtime.

    Raises:
        ExportError: ONNX Runtime does not load it.
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
def _skip_if_optional(name: str, options: Options, skipped: dict[str, str]) -> Iterator[None]:
    """Record the reason and continue if a decode graph fails that is not required."""
    try:
        yield
    except ExportError as error:
        if name != "decode" or options.decode == "yes":
            raise
        skipped[name] = str(error)


def write_graph(
    spec: GraphSpec,
    folder: Path,
    name: str,
    weights: SharedWeights,
    dtype: Dtype = "float32",
    missing: frozenset[str] = frozenset(),
    bar: Progress | None = None,
) -> None:
    """Trace a graph and write it as the file ``name``.

    Args:
        spec: the graph; for a float16 graph its module is in float16 already.
        folder: the folder of the bundle.
        name: of the graph's file.
        weights: of the same folder.
        dtype: ``int8`` quantises the graph.
        missing: parameters that the checkpoint lacks; no output may depend on them.
        bar: receives the steps and their progress.

    Raises:
        ExportError: the module cannot be traced or converted, or depends on missing parameters.
    """
    tick = bar.tick if bar else ignore
    graph = Path(name).stem
    _begin(bar, f"tracing the {graph} graph")
    program = onnx_graph.trace(spec, tick)
    absent = sorted(onnx_graph.used_parameters(program) & missing)
    if absent:
        raise ExportError(
            f"the checkpoint lacks {len(absent)} parameters that the states depend on, first "
            f"{absent[0]}; expected all weights of the model. Check that the weights belong to "
            "this config.json"
        )
    _begin(bar, f"converting the {graph} graph to ONNX")
    model = onnx_graph.convert(program, spec, tick)
    del program
    _begin(bar, f"writing the {graph} graph")
    if dtype != "int8":
        weights.save(model, name, tick)
        return
    with TemporaryDirectory(dir=folder) as temporary:
        weights.save(quantize(model, Path(temporary)), name, tick)


def _begin(bar: Progress | None, step: str) -> None:
    if bar is not None:
        bar.step(step)


def _requested_graphs(options: Options) -> list[str]:
    """Names of the graphs that the options request."""
    return [
        "score", *["decode"] * (options.decode != "no"), *["analysis"] * options.analysis
    ]  # fmt: skip


def _kept_layers(architecture: Architecture, requested: int | None) -> int:
    if requested is None:
        return architecture.layers
    if not 1 <= requested <= architecture.layers:
        raise ExportError(
            f"layers {requested}: the model has {architecture.layers} blocks; expected 1 to "
            f"{architecture.layers}"
        )
    return requested


def _graph_card(file: str, spec: GraphSpec, proof: Proof, dtype: Dtype) -> GraphCard:
    return GraphCard(
        file=file,
        mode=spec.mode,
        opset=onnx_graph.OPSET,
        inputs=tuple(item.name for item in spec.inputs),
        outputs=spec.outputs,
        parity=Parity(
            tolerance=TOLERANCES[dtype].value,
            shapes=proof.shapes,
            largest=dict(proof.measured(dtype)),
            rounding=dict(proof.rounding) if TOLERANCES[dtype].measure == "difference" else {},
        ),
    )


def _model_card(
    name: str, loaded: LoadedModel, architecture: Architecture, layers: int, dtype: Dtype
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
