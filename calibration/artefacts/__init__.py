"""Import released heads of SIREN and Agent-SIREN into a bundle, without retraining.

released_head  reads a folder with ``siren_config.json`` and ``siren.safetensors`` as a ``Head``
config         reads and validates ``siren_config.json``
bundle_fit     checks a head against a bundle's model, and makes it a fitted detector
import_head    the whole import
"""
