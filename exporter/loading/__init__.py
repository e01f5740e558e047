"""Load a model: its backbone in float32, its language-model head, and what the backbone is made of.

source        location and loading options of a model
checkpoint    a folder or hub id as a PyTorch model
gguf_model    a GGUF file as a PyTorch model
gguf_config   the settings of a GGUF file in transformers' configuration
adapter       a LoRA adapter merged into the weights
architecture  blocks, width, kind and positions of a backbone
"""
