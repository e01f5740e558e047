"""Translate a traced program to ONNX without a second trace.

``torch.onnx.export`` retraces every program twice: to decompose operators, and to make implicit
casts explicit. Together these take twice as long as the first trace. Most transformers need
neither: ONNX has nearly all of their operators, and no operation mixes dtypes. This module
finds such programs, rewrites the few unsupported operators in place and translates the program.
"""

from functools import cache
from typing import Any

import onnx_ir
import torch
from onnxscript.version_converter import convert_version
from torch.export import ExportedProgram
from torch.fx import Node

_aten = torch.ops.aten


def _operators(*names: str) -> frozenset[Any]:
    """PyTorch operators by name and overload."""
    return frozenset(
        getattr(getattr(_aten, name), overload)
        for name, _, overload in (each.partition(".") for each in names)
    )


_ASSERTIONS = _operators(
    "_assert_tensor_metadata.default", "_assert_scalar.default", "_assert_async.msg",
    "sym_constrain_range_for_size.default",
)  # fmt: skip
_CASTS = _operators("to.dtype", "to.device", "to.dtype_layout", "type_as.default")
_SHAPES = _operators("view.default", "reshape.default", "expand.default")
_COMPARISONS = _operators(
    *(
        f"{name}.{overload}"
        for name in ("eq", "ne", "lt", "le", "gt", "ge")
        for overload in ("Tensor", "Scalar")
    )
)
_MIXING = _operators(
    "embedding.default", "index.Tensor", "gather.default", "_to_copy.default",
    "scaled_dot_product_attention.default", "new_ones.default", "new_zeros.default",
    "ones_like.default", "zeros_like.default",
)  # fmt: skip
"""Operators whose tensors may have different dtypes, both in PyTorch and in ONNX."""
_CHOICES = _operators(
    "where.self",
    "where.ScalarOther",
    "where.ScalarSelf",
    "masked_fill.Scalar",
    "masked_fill.Tensor",
)
"""Operators that select from tensors by a bool tensor."""
_RENAMED = {
    _aten.__and__.Tensor: _aten.bitwise_and.Tensor,
    _aten.__or__.Tensor: _aten.bitwise_or.Tensor,
}
_REWRITTEN = _ASSERTIONS | _CASTS | _RENAMED.keys() | {_aten.numpy_T.default}


def translate(program: ExportedProgram, opset: int) -> onnx_ir.Model | None:
    """The program in ONNX operators, or None if it must be decomposed first.

    Args:
        program: operators that ONNX lacks are replaced by equivalent ones.
        opset: of the model.
    """
    # The public function retraces, so private ones are used; the result is None without them.
    try:
        from torch.onnx._internal.exporter import _core  # noqa: PLC0415

        registry = _registry(opset)
        calls = [node for node in program.graph.nodes if node.op == "call_function"]
        known = (node.target in _REWRITTEN or registry.is_registered(node.target) for node in calls)
        if not all(map(_is_plain, calls)) or not all(known) or _regions(program):
            return None
        _complete_users(program)
        for node in calls:
            _rewrite(program, node)
        _name_outputs(program)
        program.graph_module.recompile()
        onnx_program = _core._exported_program_to_onnx_program(program, registry=registry)  # noqa: SLF001
        model: onnx_ir.Model = onnx_program.model
        convert_version(model, opset, fallback=True)
    except (ImportError, AttributeError, TypeError, torch.onnx.OnnxExporterError):
        return None  # decomposition may succeed, or name the operator that fails
    return model


@cache
def _registry(opset: int) -> Any:
    """ONNX implementations of PyTorch's operators; building the registry takes 1 to 2 seconds."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry  # noqa: PLC0415

    return ONNXRegistry.from_torchlib(opset_version=opset)


def _regions(program: ExportedProgram) -> list[str]:
    """Names of subgraphs, such as autocast's, which decomposition inlines."""
    return [name for name, _ in program.graph_module.named_modules() if name]


def _complete_users(program: ExportedProgram) -> None:
    """Add uses that the tracer omits from ``users``; replacing and erasing nodes needs them."""
    for node in program.graph.nodes:
        for used in node.all_input_nodes:
            used.users.setdefault(node)


def _name_outputs(program: ExportedProgram) -> None:
    """Update the names of the outputs, because some of their nodes were replaced."""
    last = program.graph.output_node().args[0]
    assert isinstance(last, (tuple, list))
    for spec, node in zip(program.graph_signature.output_specs, last, strict=True):
        assert isinstance(node, Node)
        spec.arg.name = node.name


def _is_plain(node: Node) -> bool:
    """Whether a call neither changes a tensor in place nor casts implicitly."""
    if not isinstance(node.target, torch._ops.OpOverload):  # noqa: SLF001
        return getattr(node.target, "__module__", "") == "_operator"  # on sizes and tuples
    if node.target in _ASSERTIONS or node.target in _CASTS or node.target in _MIXING:
        return True
    if node.target._schema.is_mutable:  # noqa: SLF001
        return False
    dtypes = [value.dtype for value in map(_value, node.all_input_nodes) if value is not None]
    result = _value(node)
    if result is None or not dtypes:
        return True
    if node.target in _CHOICES:
        dtypes = [dtype for dtype in dtypes if dtype != torch.bool] or dtypes
    expected = dtypes[0] if node.target in _COMPARISONS else result.dtype
    return all(dtype == expected for dtype in dtypes) and _scalars_fit(node, expected)


def _scalars_fit(node: Node, dtype: torch.dtype) -> bool:
    """Whether each number and size beside the tensors has their dtype."""
    assert isinstance(node.target, torch._ops.OpOverload)  # noqa: SLF001
    for parameter, value in zip(node.target._schema.arguments, node.args, strict=False):  # noqa: SLF001
        if str(parameter.type) not in ("number", "Tensor") or value is None:
            continue
        if isinstance(value, Node) and _value(value) is None and dtype != torch.int64:
            return False  # a size
        if isinstance(value, float) and not dtype.is_floating_point:
            return False
    return True


def _value(node: Node) -> torch.Tensor | None:
    value: Any = node.meta.get("val")
    return value if isinstance(value, torch.Tensor) else None


def _rewrite(program: ExportedProgram, node: Node) -> None:
    """Replace an operator that ONNX lacks, or remove one that has no effect."""
    if node.target in _ASSERTIONS:
        program.graph.erase_node(node)
    elif node.target in _RENAMED:
        node.target = _RENAMED[node.target]
    elif node.target is _aten.numpy_T.default:
        reversed_axes = list(range(_tensor(node).ndim))[::-1]
        node.target, node.args = _aten.permute.default, (node.args[0], reversed_axes)
    elif node.target in _CASTS or node.target in _SHAPES:
        source = node.args[0]
        assert isinstance(source, Node)
        before, after = _tensor(source), _tensor(node)
        # sizes are compared as text: a comparison of free sizes as numbers would make them constant
        same = before.dtype == after.dtype and str(before.shape) == str(after.shape)
        # an output keeps its own node, because two outputs cannot share one
        if same and not any(user.op == "output" for user in node.users):
            node.replace_all_uses_with(source)
            program.graph.erase_node(node)
        elif node.target in _CASTS:
            node.target, node.args = _aten._to_copy.default, (source,)  # noqa: SLF001
            node.kwargs = {"dtype": after.dtype}


def _tensor(node: Node) -> torch.Tensor:
    value = _value(node)
    assert value is not None
    return value
