"""Calibrate WeightWatch: directions that tuning added, and bounds of the cosines of normal text.

    from layerguard.calibration import weightwatch

    params = weightwatch.fit(extremes, directions)  # extremes: float32 [n, 4, 2, K]

estimation  bounds of the cosines, held-out scores and threshold
directions  leading singular vectors of the weight changes
bounds      bounds by this project's rule and by the published rule
ranges      the most extreme cosines, for the published rule
calibrator  the detector's ``Calibrator``
"""

from layerguard.calibration.weightwatch.estimation import Mode, fit, train

__all__ = ["Mode", "fit", "train"]
