"""Graphs in float16 and int8; pooling is float32 in every precision."""

from pathlib import Path

import onnx_ir
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import nn

from layerguard.exporter.quiet import quiet

_PREPROCESSED = {"onnx.quant.pre_process": "onnxruntime.quant"}
"""Tells the quantiser that shapes are known; else it advises preprocessing on the root logger."""


def halve(model: nn.Module) -> None:
    """Cast parameters and saved buffers to float16, in place.

    Buffers that are not saved, such as rotary frequencies, stay float32, as when transformers loads
    a model in float16: rounded frequencies would change the positions of long texts.
    """
    for tensor in model.state_dict(keep_vars=True).values():
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(torch.float16)


def quantize(model: onnx_ir.Model, folder: Path) -> onnx_ir.Model:
    """The graph with weight matrices in int8, one scale per column.

    Activations are quantised dynamically with one scale per batch, so the states of a row depend
    slightly on the other rows. Products of two activations, such as attention and pooling, stay
    float32.

    Args:
        model: a float32 graph.
        folder: for the quantiser's files; the result reads its weights there.
    """
    full, small = folder / "full.onnx", folder / "small.onnx"
    model.metadata_props.update(_PREPROCESSED)
    onnx_ir.save(model, full, external_data="full.data")
    with quiet():
        quantize_dynamic(
            full,
            small,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            # 7-bit weights: with 8 bits, processors without VNNI saturate sums and give other
            # scores. Unsigned weights never saturate, but are as slow as float32
            reduce_range=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=True,
        )
    quantised = onnx_ir.load(small)
    for name in _PREPROCESSED:
        del quantised.metadata_props[name]
    return quantised
