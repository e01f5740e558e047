"""Trace a graph's module and convert it to ONNX, without paths or stacks of this machine."""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import onnx_ir
import torch
from onnx_ir.passes.common import CommonSubexpressionEliminationPass
from onnxscript.optimizer import optimize_ir
from onnxscript.rewriter import onnx_fusions
from torch import nn
from torch.export import Dim, ExportedProgram

from layerguard.exporter.graph.experts import traceable_experts
from layerguard.exporter.graph.rope import per_row_frequencies
from layerguard.exporter.graph.spec import GraphInput, GraphSpec
from layerguard.exporter.graph.translate import translate
from layerguard.exporter.progress import Tick, ignore
from layerguard.exporter.quiet import quiet
from layerguard.runtime.errors import ExportError

OPSET = 23
"""The first with the operators Attention, RMSNormalization and RotaryEmbedding: a third fewer nodes
than opset 18, and attention at 512 tokens is a third faster than its parts."""

_FAILED_NODE = re.compile(r"translating node %(\w+)")
_MISSING_OPERATOR = re.compile(r"No ONNX function found for <OpOverload\(op='([\w.]+)'")


def trace(spec: GraphSpec, tick: Tick = ignore) -> ExportedProgram:
    """Trace the module of a graph with free axes.

    Args:
        spec: the graph.
        tick: receives the progress.

    Raises:
        ExportError: the module cannot be traced; the message names the submodule.
    """
    module = spec.module.eval()
    free = [dict.fromkeys(item.axes, Dim.DYNAMIC) for item in spec.inputs]
    # torch.export expects the axes grouped like the arguments
    axes = tuple(inspect.signature(module.forward).bind(*free).arguments.values())
    running: list[str] = []
    try:
        with (
            quiet(),
            traceable_experts(module),
            per_row_frequencies(module),
            _tracking(module, running, tick),
            torch.no_grad(),
        ):
            return torch.export.export(
                module,
                tuple(item.example for item in spec.inputs),
                dynamic_shapes=axes,
                strict=False,
            )
    except ExportError:
        raise
    except Exception as error:  # the model's own code may raise anything
        raise ExportError(
            f"{running[-1] if running else type(module).__name__} cannot be traced for ONNX: "
            f"{first_line(error)}. Expected a forward pass whose steps and shapes depend only on "
            "the shape of the input. Experts can be exported if transformers 5 can switch their "
            "implementation. Try another attention setting in config.json, a newer transformers, "
            "or rewrite the module without branches on tensor values"
        ) from error


def used_parameters(program: ExportedProgram) -> set[str]:
    """Names, in the backbone, of the parameters that the outputs depend on."""
    names = program.graph_signature.inputs_to_parameters
    used = {node.name for node in program.graph.nodes if node.op == "placeholder" and node.users}
    return {target.removeprefix("model.") for name, target in names.items() if name in used}


def convert(program: ExportedProgram, spec: GraphSpec, tick: Tick = ignore) -> onnx_ir.Model:
    """Convert a traced module to ONNX operators.

    Args:
        program: from ``trace``; it is changed and must not be used afterwards.
        spec: the graph.
        tick: receives the progress.

    Raises:
        ExportError: ONNX lacks an operator; the message names it and the module that uses it.
    """
    with quiet():
        model = translate(program, OPSET) or _decomposed(program)
        tick(0.5)
        _simplify(model)
    for value, item in zip(model.graph.inputs, spec.inputs, strict=True):
        value.name = item.name
    for value, card in zip(model.graph.outputs, spec.outputs, strict=True):
        value.name = card.name
    _clean(model, spec.inputs)
    return model


def _decomposed(program: ExportedProgram) -> onnx_ir.Model:
    """Convert a program after PyTorch has decomposed it into core operators.

    Raises:
        ExportError: ONNX lacks an operator.
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
    """Fold constants, remove duplicate and unused nodes, and use the fused operators of opset 23.

    The trace provides the shapes that these passes need. Inferring them again, the default, takes
    longer than all other steps. Duplicates are removed first, because most nodes are duplicates.
    """
    CommonSubexpressionEliminationPass()(model)
    optimize_ir(model, onnx_shape_inference=False)
    onnx_fusions.fuse(model)
    _cast_normalized(model)


def _cast_normalized(model: onnx_ir.Model) -> None:
    """Cast the input of each RMSNormalization to the dtype of its scale.

    The fusion drops this cast, which Gemma's float16 norms have. ONNX allows the two dtypes to
    differ, but ONNX Runtime does not load such a node.
    """
    for node in model.graph.all_nodes():
        if node.op_type != "RMSNormalization":
            continue
        states, scale = node.inputs
        assert states is not None
        assert scale is not None
        if states.dtype == scale.dtype or scale.dtype is None:
            continue
        cast = onnx_ir.node("Cast", [states], attributes={"to": scale.dtype})
        cast.outputs[0].dtype, cast.outputs[0].shape = scale.dtype, states.shape
        assert node.graph is not None
        node.graph.insert_before(node, cast)
        node.replace_input_with(0, cast.outputs[0])


def _clean(model: onnx_ir.Model, inputs: Sequence[GraphInput]) -> None:
    """Remove metadata of the trace (source paths, stacks) and name the free axes."""
    graph = model.graph
    names = {
        str(dim.value): item.axes[axis]
        for value, item in zip(graph.inputs, inputs, strict=True)
        for axis, dim in enumerate(value.shape or ())
        if isinstance(dim, onnx_ir.SymbolicDim) and str(dim.value).isidentifier()
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
    """An axis with its free symbols renamed: ``s43*s53`` becomes ``batch*tokens``."""
    if isinstance(axis, int) or axis.value is None:
        return axis if isinstance(axis, int) else None
    return re.sub(r"\w+", lambda symbol: names.get(symbol[0], symbol[0]), axis.value)


@contextmanager
def _tracking(module: nn.Module, running: list[str], tick: Tick) -> Iterator[None]:
    """List the modules that are running in ``running``, innermost last; errors leave it unchanged.

    The progress is the share of modules that have run, because most run once.
    """
    modules = list(module.named_modules())
    finished = 0

    def leave(*_: object) -> None:
        nonlocal finished
        running.pop()
        finished += 1
        tick(finished / len(modules))

    with ExitStack() as hooks:
        for name, child in modules:
            label = f"module {name.removeprefix('model.') or 'root'!r} ({type(child).__name__})"

            def enter(*_: object, label: str = label) -> None:
                running.append(label)

            hooks.enter_context(child.register_forward_pre_hook(enter))
            hooks.enter_context(child.register_forward_hook(leave))
        yield


def _conversion_failure(program: ExportedProgram, error: BaseException) -> str:
    messages = []
    cause: BaseException | None = error
    while cause is not None:
        messages.append(str(cause))
        cause = cause.__cause__
    text = "\n".join(messages)
    operator = _MISSING_OPERATOR.search(text)
    node = _FAILED_NODE.search(text)
    missing = f"operator {operator[1]}" if operator else first_line(Exception(messages[-1]))
    module = _module_of(program, node[1] if node else "") or "a module of the model"
    return (
        f"{module}: {missing} cannot be converted to ONNX opset {OPSET}; expected operators that "
        "torch.onnx supports. Try a newer torch and onnxscript, or write the module with other "
        "operators"
    )


def _module_of(program: ExportedProgram, node_name: str) -> str | None:
    """The module that a node of the decomposed program comes from."""
    with quiet():
        nodes = program.run_decompositions().graph.nodes
    for node in nodes:
        if node.name == node_name:
            for path, kind in reversed(node.meta.get("nn_module_stack", {}).values()):
                name = kind if isinstance(kind, str) else kind.__name__
                return f"module {path.removeprefix('model.')!r} ({name.rpartition('.')[2]})"
    return None


def first_line(error: BaseException) -> str:
    """The first line of an error message; the type of the error if the message is empty."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
