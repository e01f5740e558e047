"""From a transformer to a bundle: its states as an ONNX graph that has proved itself.

loading       a folder or hub id becomes a float32 backbone
architecture  its blocks, width, kind and positions, found by looking at it run
outputs       which outputs the graph will have, and their names
wrapper       the backbone as a module that returns those outputs
graph         that module as an ONNX file without traces of this machine
precision     float16 and int8
parity        the file against the model in PyTorch, on shapes that the trace never saw
tokenizer     the tokenizer and chat template as plain files
pipeline      all of it in order, written as one bundle
"""

from layerguard.exporter.pipeline import Options, export

__all__ = ["Options", "export"]
