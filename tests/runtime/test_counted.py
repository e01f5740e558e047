"""Texts that are not traffic, such as those of health checks, are not counted as traffic."""

from pathlib import Path

from layerguard.runtime import Guard


def test_health_checks_are_not_counted(sound: Path) -> None:
    """Neither by the monitor of flags nor by the monitor of p-values."""
    guard = Guard.load(sound, threads=1)
    assert guard.monitor.n == 0  # the canaries
    guard.check("the garden", counted=False)
    guard.check_batch(["the garden", "rain"], counted=False)
    assert guard.monitor.n == 0
    guard.check("the garden")
    guard.check_batch(["the garden", "rain"])
    assert guard.monitor.n == 3
