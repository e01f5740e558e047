"""LayerTracer: where in a model an answer forms, and which of its blocks is fragile.

LayerTracer is an analysis, not a detector: it does not calibrate or serve anything. It reads a
bundle's analysis graph, which returns every layer's logits and has a gate on every block.

curves         a target's probability from layer to layer, and where it first rises
divergence     the divergence of a masked model's output from the full model's
masks          the ways to mask one block
graph          runs the analysis graph
prompt_reader  rows as token ids
prompt_trace   the trace of one prompt
traced_prompt  a prompt with its trace
summary        the summary of many traces
trace          the traces of all rows, and their summary
report         the summary as a table and as a page with plots

Source: LayerTracer, arXiv 2604.20556. No code was published, and only the abstract's formulas are
known. Modules that add a definition of their own say so.
"""
