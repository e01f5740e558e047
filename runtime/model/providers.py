"""Opens a graph on one execution provider of ONNX Runtime, without fallback to another."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from layerguard.runtime.errors import BundleError, MachineError

_CPU = "CPUExecutionProvider"
PROVIDER_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "CUDAExecutionProvider": {"use_tf32": "0"},
}
"""Provider options that differ from ONNX Runtime's defaults. TF32, CUDA's default, keeps only 10 of
float32's 23 mantissa bits in products, and no graph would pass the export check."""


def open_graph(runtime: Any, graph: Path, options: Any, provider: str) -> Any:
    """Open an ``InferenceSession`` with ONNX Runtime's fallback to the CPU turned off.

    Args:
        runtime: the onnxruntime module.
        graph: the ONNX file.
        options: its ``SessionOptions``.
        provider: ONNX Runtime's name of the execution provider.

    Raises:
        MachineError: the provider does not engage.
        BundleError: the graph cannot be loaded.
    """
    wanted = provider, dict(PROVIDER_OPTIONS.get(provider, {}))
    try:
        str(graph).encode()
    except UnicodeEncodeError as error:
        fault = "its path is not valid UTF-8, which onnxruntime requires; rename the folder"
        raise BundleError(graph.parent, [fault]) from error
    try:
        return runtime.InferenceSession(str(graph), options, providers=[wanted], enable_fallback=0)
    except Exception as error:  # onnxruntime raises many exception types of its own
        # A faulty graph raises one of these types; a failing provider raises a built-in type.
        if provider != _CPU and isinstance(error, (RuntimeError, ValueError)):
            raise MachineError(
                f"{provider} did not engage ({error}). Run `layerguard doctor`; a device "
                "must be visible (nvidia-smi, CUDA_VISIBLE_DEVICES)"
            ) from error
        fault = f"{graph.name} cannot be loaded by onnxruntime ({error}); export it again"
        raise BundleError(graph.parent, [fault]) from error
