"""Weights of checkpoints and adapters, and their changes by tuning, read without PyTorch.

tuning   tuned minus base weights, one matrix at a time
files    tensors of safetensors and GGUF files
names    names of the matrices that write into the residual stream
adapter  a LoRA adapter's changes to these matrices
spectra  singular values and vectors of a change
"""
