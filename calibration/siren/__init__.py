"""Calibrate SIREN: select neurons that respond to harmful text, and train a small network on them.

    from layerguard.calibration import siren

    params = siren.fit(states, labels)  # states: means over tokens, float32 [n, L + 1, hidden]

training    neurons, network, held-out scores and threshold
probes      sparse linear probes that choose the neurons of each layer
network     the network over the chosen neurons
calibrator  the detector's ``Calibrator``
"""

from layerguard.calibration.siren.training import fit, train

__all__ = ["fit", "train"]
