"""Is this checkpoint drifting into emergent misalignment? The part that serves.

A monitor is a folder that ``layerguard drift fit`` wrote for one base model. It reads a checkpoint
of that model, exported as a bundle, on fixed prompts at one layer, and predicts from the shift
along a few trait directions how misaligned the checkpoint's answers would be found.

    monitor = Monitor.load("monitor/")
    reading = monitor.check("checkpoint/")
    reading.alarm, reading.predicted, reading.traits

Trait-space Monitoring for Emergent Misalignment During SFT, arXiv 2606.07631. Nothing is generated
and no judge is asked: one forward pass for each prompt.
"""

from layerguard.runtime.drift.monitor import Monitor
from layerguard.runtime.drift.reading import DriftReading, TraitDrift

__all__ = ["DriftReading", "Monitor", "TraitDrift"]
