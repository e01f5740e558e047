"""Calibrate LCF, Layerwise Convergence Fingerprints, on the layer differences of clean prompts.

    from layerguard.calibration import lcf

    params = lcf.fit(states, target_fpr=0.01)  # states: last token, float32 [n, L + 1, hidden]

estimation  parameters, held-out scores and threshold
statistics  the formulas of the paper
held_out    scores with parameters that were fitted without the row
moments     means and variances that are updated block by block
calibrator  the detector's ``Calibrator``
"""

from layerguard.calibration.lcf.estimation import Mode, fit, train

__all__ = ["Mode", "fit", "train"]
