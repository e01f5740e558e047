"""Calibrate the drift monitor: trait directions, base projections, a regressor on labelled runs.

    from layerguard.calibration import drift

    params = drift.fit(positive, negative, base, checkpoints, runs, tau=0.05)

Trait-space Monitoring for Emergent Misalignment During SFT, arXiv 2606.07631. A monitor belongs to
one base model: nothing of it transfers to another. ``layerguard drift fit`` collects the states,
fits, and freezes the result into a folder that ``layerguard drift check`` reads.
"""

from layerguard.calibration.drift.fit import fit

__all__ = ["fit"]
