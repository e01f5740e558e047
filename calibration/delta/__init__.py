"""Calibrate delta: how strongly what tuning changed acts on clean prompts.

    from layerguard.calibration import delta

    params = delta.fit(values, layers, parts)  # values: float32 [n, K]

estimation  centre and scale of each matrix, held-out scores and threshold
calibrator  the detector's ``Calibrator``
"""

from layerguard.calibration.delta.estimation import Mode, fit, train

__all__ = ["Mode", "fit", "train"]
