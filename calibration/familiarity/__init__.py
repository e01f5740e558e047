"""Familiarity: how far a text lies from the calibration rows. It never decides.

estimation  centres, scale and directions, and held-out distances
calibrator  the entry of the registry
"""

from layerguard.calibration.familiarity.estimation import fit

__all__ = ["fit"]
