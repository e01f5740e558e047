"""A traced program straight into ONNX, without tracing it twice more.

``torch.onnx.export`` first retraces every program it is given, to decompose operators, and then
once more, to make implicit casts explicit. Together these take twice as long as the first trace.
The programs of most transformers need neither: nearly every operator that they use has a form in
ONNX as it is, and nothing mixes dtypes. Here such programs are recognised, the few operators
without a form of their own are rewritten in place, and the program is translated.
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
    """Operators of PyTorch by name and overload."""
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
        f"{name}.{of}"
        for name in ("eq", "ne", "lt", "le", "gt", "ge")
        for of in ("Tensor", "Scalar")
    )
)
_MIXING = _operators(
    "embedding.default", "index.Tensor", "gather.default", "_to_copy.default",
    "scaled_dot_product_attention.default", "new_ones.default", "new_zeros.default",
    "ones_like.default", "zeros_like.default",
)  # fmt: skip
"""Operators whose tensors may differ in dtype, in PyTorch and in ONNX alike."""
_CHOICES = _operators(
    "where.self",
    "where.ScalarOther",
    "where.ScalarSelf",
    "masked_fill.Scalar",
    "masked_fill.Tensor",
)
"""Operators that choose between tensors by a bool one."""
_RENAMED = {
    _aten.__and__.Tensor: _aten.bitwise_and.Tensor,
    _aten.__or__.Tensor: _aten.bitwise_or.Tensor,
}
_REWRITTEN = _ASSERTIONS | _CASTS | _RENAMED.keys() | {_aten.numpy_T.default}


def translate(program: ExportedProgram, opset: int) -> onnx_ir.Model | None:
    """The program in ONNX operators, or None where it must be decomposed first.

    Args:
        program: operators without a form in ONNX are rewritten in it, so that it computes the same.
        opset: of the model.
    """
    # Private functions, as the public one retraces; without them it is used all the same.
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
        made = _core._exported_program_to_onnx_program(program, registry=registry)  # noqa: SLF001
        model: onnx_ir.Model = made.model
        convert_version(model, opset, fallback=True)
    except (ImportError, AttributeError, TypeError, torch.onnx.OnnxExporterError):
        return None  # decomposing may mend it, and says whose operator is at fault where not
    return model


@cache
def _registry(opset: int) -> Any:
    """The forms that PyTorch's operators have in ONNX; making it takes a second or two."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry  # noqa: PLC0415

    return ONNXRegistry.from_torchlib(opset_version=opset)


def _regions(program: ExportedProgram) -> list[str]:
    """Parts with a graph of their own, such as autocast's, which decomposing puts inline."""
    return [name for name, _ in program.graph_module.named_modules() if name]


def _complete_users(program: ExportedProgram) -> None:
    """The tracer leaves some uses out of ``users``, by which nodes are replaced and erased."""
    for node in program.graph.nodes:
        for used in node.all_input_nodes:
            used.users.setdefault(node)


def _name_outputs(program: ExportedProgram) -> None:
    """Outputs are known by the names of their nodes, some of which were replaced."""
    last = program.graph.output_node().args[0]
    assert isinstance(last, (tuple, list))
    for spec, node in zip(program.graph_signature.output_specs, last, strict=True):
        assert isinstance(node, Node)
        spec.arg.name = node.name


def _is_plain(node: Node) -> bool:
    """Whether a call changes no tensor in place and makes no implicit cast."""
    if not isinstance(node.target, torch._ops.OpOverload):  # noqa: SLF001
        return getattr(node.target, "__module__", "") == "_operator"  # on sizes and tuples
    if node.target in _ASSERTIONS or node.target in _CASTS or node.target in _MIXING:
        return True
    if node.target._schema.is_mutable:  # noqa: SLF001
        return False
    given = [value.dtype for value in map(_value, node.all_input_nodes) if value is not None]
    made = _value(node)
    if made is None or not given:
        return True
    if node.target in _CHOICES:
        given = [dtype for dtype in given if dtype != torch.bool] or given
    wanted = given[0] if node.target in _COMPARISONS else made.dtype
    return all(dtype == wanted for dtype in given) and _scalars_fit(node, wanted)


def _scalars_fit(node: Node, dtype: torch.dtype) -> bool:
    """Whether each number and size beside the tensors is of their kind."""
    assert isinstance(node.target, torch._ops.OpOverload)  # noqa: SLF001
    for card, given in zip(node.target._schema.arguments, node.args, strict=False):  # noqa: SLF001
        if str(card.type) not in ("number", "Tensor") or given is None:
            continue
        if isinstance(given, Node) and _value(given) is None and dtype != torch.int64:
            return False  # a size
        if isinstance(given, float) and not dtype.is_floating_point:
            return False
    return True


def _value(node: Node) -> torch.Tensor | None:
    value: Any = node.meta.get("val")
    return value if isinstance(value, torch.Tensor) else None


def _rewrite(program: ExportedProgram, node: Node) -> None:
    """Replace an operator that has no form in ONNX, drop one that does nothing."""
    if node.target in _ASSERTIONS:
        program.graph.erase_node(node)
    elif node.target in _RENAMED:
        node.target = _RENAMED[node.target]
    elif node.target is _aten.numpy_T.default:
        turned = list(range(_tensor(node).ndim))[::-1]
        node.target, node.args = _aten.permute.default, (node.args[0], turned)
    elif node.target in _CASTS or node.target in _SHAPES:
        source = node.args[0]
        assert isinstance(source, Node)
        before, made = _tensor(source), _tensor(node)
        # sizes are compared as words: to compare free ones as numbers would fix them
        same = before.dtype == made.dtype and str(before.shape) == str(made.shape)
        # an output keeps a node of its own: two outputs cannot share one
        if same and not any(user.op == "output" for user in node.users):
            node.replace_all_uses_with(source)
            program.graph.erase_node(node)
        elif node.target in _CASTS:
            node.target, node.args = _aten._to_copy.default, (source,)  # noqa: SLF001
            node.kwargs = {"dtype": made.dtype}


def _tensor(node: Node) -> torch.Tensor:
    found = _value(node)
    assert found is not None
    return found
