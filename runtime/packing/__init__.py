"""Packs a bundle as a wheel, which pip installs and ``Guard.load`` finds by name."""

from layerguard.runtime.packing.pack import pack

__all__ = ["pack"]
