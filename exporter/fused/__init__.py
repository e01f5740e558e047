"""Fuses a calibrated bundle into one ONNX graph that computes scores and the decision.

Needs onnx but not PyTorch: it starts from the exported graph in the bundle.

nodes        standard operators and constants, appended to a graph
taps         the inputs of the detectors, as values of that graph
growing      the same for a graph that reads a text in chunks
registry     the detectors, one module each
decision     thresholds, p-values, and one flag per text
graph        appends all of these and removes unused nodes
proof        compares the fused graph with the runtime, text by text
texts        the default texts of the proof
pipeline     fuse, prove, write into the bundle
arguments    the arguments of ``layerguard fuse``
command      ``layerguard fuse``
"""
