"""Readers of published model files that both the exporter and the calibration need.

Exporter and calibration must not import each other, so their shared readers are in this package.
Serving code does not import it.
"""
