"""Calibrate the checkpoint monitor: trait directions, base projections, and a regressor.

    from layerguard.calibration import drift

    params = drift.fit(positive, negative, base, checkpoints, runs, tau=0.05)

Trait-space Monitoring for Emergent Misalignment During SFT, arXiv 2606.07631. A monitor is valid
for one base model only. ``fit_monitor`` collects the states, fits, and writes the result into a
folder that ``layerguard drift check`` reads.
"""

from layerguard.calibration.drift.monitor import fit_monitor
from layerguard.calibration.drift.training import fit

__all__ = ["fit", "fit_monitor"]
