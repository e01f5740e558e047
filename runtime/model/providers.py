"""Opening a graph on one execution provider of ONNX Runtime, and on no other."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from layerguard.runtime.errors import BundleError, MachineError

_CPU = "CPUExecutionProvider"
PROVIDER_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "CUDAExecutionProvider": {"use_tf32": "0"},
}
"""What ONNX Runtime is told beside its defaults, by its name of the provider. TF32, the default of
CUDA, multiplies float32 with 10 of its 23 bits: no graph would pass the exporter's gate."""


def open_graph(runtime: Any, graph: Path, options: Any, provider: str) -> Any:
    """An ``InferenceSession``. ONNX Runtime's own fallback to the CPU is off, while it runs too.

    Args:
        runtime: the onnxruntime module.
        graph: the ONNX file.
        options: its ``SessionOptions``.
        provider: ONNX Runtime's name of what is to run it.

    Raises:
        MachineError: the provider does not engage.
        BundleError: the graph cannot be loaded.
    """
    wanted = provider, dict(PROVIDER_OPTIONS.get(provider, {}))
    try:
        str(graph).encode()
    except UnicodeEncodeError as error:
        fault = "its path is not UTF-8, and onnxruntime opens no other; rename the folder"
        raise BundleError(graph.parent, [fault]) from error
    try:
        return runtime.InferenceSession(str(graph), options, providers=[wanted], enable_fallback=0)
    except Exception as error:  # onnxruntime raises many types of its own
        # a fault of the graph is of one of its own types; a provider that fails is not
        if provider != _CPU and isinstance(error, (RuntimeError, ValueError)):
            raise MachineError(
                f"{provider} did not engage ({error}). Run `layerguard doctor`; a device "
                "must be visible (nvidia-smi, CUDA_VISIBLE_DEVICES)"
            ) from error
        fault = f"{graph.name} cannot be loaded by onnxruntime ({error}); export it again"
        raise BundleError(graph.parent, [fault]) from error
