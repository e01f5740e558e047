"""Released heads of SIREN and Agent-SIREN: read, checked, fitted to a bundle; never retrained.

``artefact.read`` makes a ``Head`` of a folder with ``siren_config.json`` and
``siren.safetensors``; ``bundle_fit`` says whether a bundle's model can feed it, and freezes it.
"""
