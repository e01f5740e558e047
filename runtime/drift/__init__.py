"""Checkpoint monitor: is a fine-tuning checkpoint drifting into emergent misalignment?

A monitor is a folder that ``layerguard drift fit`` wrote for one base model. It reads a checkpoint
of that model, exported as a bundle, on fixed prompts at one layer. From the shift along a few trait
directions it predicts which share of the checkpoint's answers would be judged misaligned.

    monitor = CheckpointMonitor.load("monitor/")
    reading = monitor.check("checkpoint/")
    reading.alarm, reading.predicted, reading.traits

Source: Trait-space Monitoring for Emergent Misalignment During SFT, arXiv 2606.07631. The monitor
runs one forward pass per prompt. It generates no text and needs no judge model.
"""

from layerguard.runtime.drift.checkpoint_monitor import CheckpointMonitor
from layerguard.runtime.drift.reading import DriftReading, TraitDrift

__all__ = ["CheckpointMonitor", "DriftReading", "TraitDrift"]
