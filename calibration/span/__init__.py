"""Calibrate span: train a probe that finds an injected instruction in a text.

    from layerguard.calibration import span

    params = span.fit(windows, inside, layers=(15, 22), window=16)

training    the probe: windows with an injection against windows without
sample      what training reads of a text: the mean states of its windows
calibrator  the detector's ``Calibrator``
"""

from layerguard.calibration.span.training import fit, train

__all__ = ["fit", "train"]
