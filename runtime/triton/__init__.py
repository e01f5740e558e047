"""Triton Inference Server: a model repository from a fused bundle, and the code that runs there."""
