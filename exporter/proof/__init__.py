"""The export check: each written graph is compared with the model in PyTorch.

reference    what PyTorch gives for some texts, in float32 and in float64
score        checks a score graph on padded batches
decode       checks a decode graph on texts that are read in chunks
analysis     checks an analysis graph under random gates
differences  a graph's proof: how far each of its outputs is from PyTorch
tolerance    how far an output may be from PyTorch, by precision
"""
