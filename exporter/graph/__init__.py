"""The graphs of a bundle: their inputs, outputs and modules, and how they are written.

spec              a graph before it is written
outputs           outputs of score and decode graphs
score             the graph that reads whole texts
decode            the graph that continues a text with a cache
analysis          the graph of each layer's logits, with a gate on every block
pooling           last-token and mean states
recording         hooks that record the states of a forward pass
cached_attention  attention over a cache that the caller keeps
experts           mixtures of experts in a form that can be traced
rope              rotary frequencies that depend on a row's own length
convert           tracing, and conversion to ONNX
translate         conversion without a second trace
precision         float16 and int8
weights           one weight file for all graphs
"""
