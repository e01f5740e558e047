"""LayerTracer: where in a model an answer forms, and which of its blocks is fragile.

An analysis, not a detector: nothing is calibrated and nothing is served. It reads a bundle's
analysis graph, which gives every layer's logits and has a gate on every block.

curves      a target's probability from layer to layer, and where it first rises
divergence  how far a masked model's output is from the whole model's
masks       what becomes of one block at a time
graph       the analysis graph at work
prompt      the trace of one prompt
summary     the traces of many prompts as one
report      the summary as a table, and as a page with plots

Source: LayerTracer, arXiv 2604.20556. No code was published and its formulas are known from the
abstract alone; what the definitions here add to it is said where it is added.
"""
