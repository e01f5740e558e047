"""A calibrated bundle as one ONNX graph that scores and decides by itself.

Needs onnx, not PyTorch: what is fused is the exported graph as it lies in the bundle.

nodes        standard operators and constants, appended to a graph
taps         what each detector reads, as values of that graph
lcf, siren, weightwatch  one detector's arithmetic each
decision     thresholds, p-values, and one flag a text
graph        all of it appended, and what nothing needs any more cut off
proof        the fused graph against the runtime, text by text
texts        what it is proved on unless the caller brings rows
pipeline     fuse, prove, write into the bundle
command      ``layerguard fuse``
"""
