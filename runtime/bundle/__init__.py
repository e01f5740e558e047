"""The bundle: the folder that travels, with graph, tokenizer, parameters and manifest."""

from layerguard.runtime.bundle.load import Bundle
from layerguard.runtime.bundle.manifest import Manifest

__all__ = ["Bundle", "Manifest"]
