"""The sub-commands of ``layerguard`` that need the extra ``calibrate``."""
