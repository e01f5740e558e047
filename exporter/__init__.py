"""From a transformer to a bundle: its states as an ONNX graph that has proved itself.

loading       a folder or hub id becomes a float32 backbone, and the language model around it
adapter       a LoRA adapter merged into the weights
architecture  its blocks, width, kind and positions, found by looking at it run
text_rules    how a bundle turns texts into tokens
outputs       which outputs a graph will have, and their names
part          one graph of the bundle: module, inputs, outputs and proof
score         the graph that reads whole texts: wrapper.py is its module, parity.py its proof
decode        the graph that continues a text over a cache, and its own parity
cached_attention  how a model of transformers is told to read that cache
analysis      the graph of each layer's logits, with a gate on every block, and its own parity
graph         a part's module as ONNX without traces of this machine
weights       one file of weights for all graphs
precision     float16 and int8
comparison    how far a graph may be from PyTorch, and is
suggestion    --layers as a number, or from a trace
tokenizer     the tokenizer and chat template as plain files
pipeline      all of it in order, written as one bundle
fused         a calibrated bundle as one graph that scores and decides by itself
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layerguard.exporter.pipeline import Exported, Options, export

__all__ = ["Exported", "Options", "export"]


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first asked for: fusing needs no PyTorch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from layerguard.exporter import pipeline  # noqa: PLC0415

    return getattr(pipeline, name)
