"""From a wrapped model to an ONNX graph that holds nothing of the machine that made it."""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import onnx_ir
import torch
from onnx_ir.passes.common import CommonSubexpressionEliminationPass
from onnxscript.optimizer import optimize_ir
from onnxscript.rewriter import onnx_fusions
from torch import nn
from torch.export import Dim, ExportedProgram

from layerguard.exporter.graph.direct import translate
from layerguard.exporter.graph.experts import traceable_experts
from layerguard.exporter.graph.part import GraphInput, Part
from layerguard.exporter.graph.rope import rows_apart
from layerguard.exporter.progress import Tick, ignore
from layerguard.exporter.quiet import quiet
from layerguard.runtime.errors import ExportError

OPSET = 23
"""The first with Attention, RMSNormalization and RotaryEmbedding as operators: a third fewer nodes
than opset 18, and attention at 512 tokens a third faster than its parts."""

_FAILED_NODE = re.compile(r"translating node %(\w+)")
_MISSING_OPERATOR = re.compile(r"No ONNX function found for <OpOverload\(op='([\w.]+)'")


def trace(part: Part, tick: Tick = ignore) -> ExportedProgram:
    """Trace the part's module with free axes.

    Args:
        part: whose module to trace.
        tick: told how much of it is done.

    Raises:
        ExportError: naming the module that cannot be traced.
    """
    module = part.module.eval()
    free = [dict.fromkeys(item.axes, Dim.DYNAMIC) for item in part.inputs]
    # bound to the signature, as the trace wants the axes grouped like the arguments
    axes = tuple(inspect.signature(module.forward).bind(*free).arguments.values())
    trail: list[str] = []
    try:
        with (
            quiet(),
            traceable_experts(module),
            rows_apart(module),
            _following(module, trail, tick),
            torch.no_grad(),
        ):
            return torch.export.export(
                module,
                tuple(item.example for item in part.inputs),
                dynamic_shapes=axes,
                strict=False,
            )
    except ExportError:
        raise
    except Exception as error:  # tracing runs the model's own code, which may raise anything
        raise ExportError(
            f"{trail[-1] if trail else type(module).__name__} cannot be traced for ONNX: "
            f"{first_line(error)}. Expected a forward pass whose steps and shapes depend on "
            "nothing but the shape of the input. Experts are exportable where transformers 5 can "
            "switch their implementation. Try another attention setting in config.json, a newer "
            "transformers, or rewrite that module without branches on tensor values"
        ) from error


def used_parameters(program: ExportedProgram) -> set[str]:
    """Names of the parameters, as the backbone has them, that some output depends on."""
    names = program.graph_signature.inputs_to_parameters
    used = {node.name for node in program.graph.nodes if node.op == "placeholder" and node.users}
    return {target.removeprefix("model.") for name, target in names.items() if name in used}


def convert(program: ExportedProgram, part: Part, tick: Tick = ignore) -> onnx_ir.Model:
    """The traced module in ONNX operators.

    Args:
        program: as ``trace`` gave it; it is spent.
        part: that it is of.
        tick: told how much of it is done.

    Raises:
        ExportError: naming the operator that ONNX lacks and the module that uses it.
    """
    with quiet():
        model = translate(program, OPSET) or _decomposed(program)
        tick(0.5)
        _simplify(model)
    for value, item in zip(model.graph.inputs, part.inputs, strict=True):
        value.name = item.name
    for value, card in zip(model.graph.outputs, part.outputs, strict=True):
        value.name = card.name
    _clean(model, part.inputs)
    return model


def _decomposed(program: ExportedProgram) -> onnx_ir.Model:
    """The program in ONNX operators by way of PyTorch's core operators.

    Raises:
        ExportError: an operator has no form in ONNX.
    """
    try:
        converted = torch.onnx.export(
            program, opset_version=OPSET, dynamo=True, optimize=False, verbose=False
        )
    except torch.onnx.OnnxExporterError as error:
        raise ExportError(_conversion_failure(program, error)) from error
    assert converted is not None
    model: onnx_ir.Model = converted.model
    return model


def _simplify(model: onnx_ir.Model) -> None:
    """Fold constants, drop what is double or unused, and use opset 23's larger operators.

    The trace brought the shapes that these passes need. To infer them again, node by node, as the
    passes' default does, takes longer than all else. Doubles go first, as most nodes are some.
    """
    CommonSubexpressionEliminationPass()(model)
    optimize_ir(model, onnx_shape_inference=False)
    onnx_fusions.fuse(model)


def _clean(model: onnx_ir.Model, inputs: Sequence[GraphInput]) -> None:
    """Drop notes of the trace (source paths, stacks) and give the free axes names."""
    graph = model.graph
    names = {
        str(found.value): item.axes[axis]
        for value, item in zip(graph.inputs, inputs, strict=True)
        for axis, found in enumerate(value.shape or ())
        if isinstance(found, onnx_ir.SymbolicDim) and str(found.value).isidentifier()
    }
    model.producer_name, model.producer_version, model.doc_string = "layerguard", "", None
    values = {*graph.inputs, *graph.initializers.values()}
    for node in graph.all_nodes():
        node.doc_string = None
        node.metadata_props.clear()
        values.update(node.outputs)
    model.metadata_props.clear()
    graph.metadata_props.clear()
    for value in values:
        value.metadata_props.clear()
        if value.shape is not None:
            value.shape = onnx_ir.Shape(_named(axis, names) for axis in value.shape)


def _named(axis: int | onnx_ir.SymbolicDim, names: Mapping[str, str]) -> int | str | None:
    """An axis, free or not, in the words of ``names``: ``s43*s53`` becomes ``batch*tokens``."""
    if isinstance(axis, int) or axis.value is None:
        return axis if isinstance(axis, int) else None
    return re.sub(r"\w+", lambda word: names.get(word[0], word[0]), axis.value)


@contextmanager
def _following(module: nn.Module, trail: list[str], tick: Tick) -> Iterator[None]:
    """Keep in ``trail`` the modules being run, innermost last; an error leaves it as it was.

    Each that has run is a tick: of one in so many, as most run once.
    """
    handles = []
    modules = list(module.named_modules())
    run = 0
    for name, child in modules:
        words = f"module {name.removeprefix('model.') or 'root'!r} ({type(child).__name__})"

        def enter(*_: object, words: str = words) -> None:
            trail.append(words)

        def leave(*_: object) -> None:
            nonlocal run
            trail.pop()
            run += 1
            tick(run / len(modules))

        handles += [child.register_forward_pre_hook(enter), child.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _conversion_failure(program: ExportedProgram, error: BaseException) -> str:
    messages = []
    cause: BaseException | None = error
    while cause is not None:
        messages.append(str(cause))
        cause = cause.__cause__
    text = "\n".join(messages)
    operator = _MISSING_OPERATOR.search(text)
    node = _FAILED_NODE.search(text)
    what = f"operator {operator[1]}" if operator else first_line(Exception(messages[-1]))
    where = _module_of(program, node[1] if node else "") or "a module of the model"
    return (
        f"{where}: {what} has no form in ONNX opset "
        f"{OPSET}; expected operators that torch.onnx knows. Try a newer torch and onnxscript, or "
        "write that module with other operators"
    )


def _module_of(program: ExportedProgram, node_name: str) -> str | None:
    """The module that a node comes from; conversion names nodes of the decomposed program."""
    with quiet():
        nodes = program.run_decompositions().graph.nodes
    for node in nodes:
        if node.name == node_name:
            for path, kind in reversed(node.meta.get("nn_module_stack", {}).values()):
                name = kind if isinstance(kind, str) else kind.__name__
                return f"module {path.removeprefix('model.')!r} ({name.rpartition('.')[2]})"
    return None


def first_line(error: BaseException) -> str:
    """The first words of an error; its type where it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
