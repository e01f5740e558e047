"""Files that models are published in, read as far as exporter and calibration both need it.

The two may not import each other, so what they share lies here. Nothing that serves imports it.
"""
