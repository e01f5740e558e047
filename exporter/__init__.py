"""Export a transformer as a bundle: an ONNX graph of its hidden states, checked against PyTorch.

pipeline         the whole export, from the model to the sealed bundle
loading          a folder, GGUF file or hub id as a float32 model, and what its backbone is made of
text             the tokenizer, the chat template and the text rules of the bundle
graph            each graph's inputs, outputs and module, and how it is traced, converted and stored
proof            the export check: how far each written graph is from PyTorch, and how far it may be
progress         the progress bar
quiet            hides log lines and warnings of the conversion libraries
layers_argument  the value of ``--layers``: a number, or the file of a trace
arguments        the arguments of ``layerguard export``
command          ``layerguard export``
fused            a calibrated bundle as one graph that scores and decides
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layerguard.exporter.pipeline import Exported, Options, export

__all__ = ["Exported", "Options", "export"]


def __getattr__(name: str) -> Any:
    """Import the public names on first use, because fusing needs no PyTorch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from layerguard.exporter import pipeline  # noqa: PLC0415

    return getattr(pipeline, name)
