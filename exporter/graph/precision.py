"""Graphs in float16 and int8. Pooling stays in float32 in every precision."""

from pathlib import Path

import onnx_ir
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import nn

from layerguard.exporter.quiet import quiet


def halve(model: nn.Module) -> None:
    """Cast, in place, what a float16 checkpoint would hold: parameters and saved buffers.

    Buffers that are computed and never saved, such as the frequencies of rotary positions, stay
    float32 as they do when transformers loads a model in float16: rounded, they would turn the
    positions of long texts.
    """
    for tensor in model.state_dict(keep_vars=True).values():
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(torch.float16)


def quantize(model: onnx_ir.Model, folder: Path) -> onnx_ir.Model:
    """The graph with its weight matrices in int8, one scale a column.

    Activations are quantised as they come, with one scale for the whole batch: a row's states
    depend, a little, on the rows beside it. Products of two activations, attention and pooling
    among them, stay float32.

    Args:
        model: a float32 graph.
        folder: for the quantiser's files; the result reads its weights there.
    """
    full, small = folder / "full.onnx", folder / "small.onnx"
    onnx_ir.save(model, full, external_data="full.data")
    with quiet():
        quantize_dynamic(
            full,
            small,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            # 7-bit weights: with 8, processors without VNNI saturate sums, and so score otherwise
            # than those with it. Unsigned weights never saturate, at the speed of float32
            reduce_range=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=True,
        )
    return onnx_ir.load(small)
