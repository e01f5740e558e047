"""The detectors that can be calibrated; a new detector needs a package and a line here."""

from layerguard.calibration.calibrator import Calibrator
from layerguard.calibration.delta.calibrator import DELTA
from layerguard.calibration.familiarity.calibrator import FAMILIARITY
from layerguard.calibration.lcf.calibrator import LCF
from layerguard.calibration.siren.calibrator import SIREN
from layerguard.calibration.span.calibrator import SPAN
from layerguard.calibration.weightwatch.calibrator import WEIGHTWATCH

CALIBRATORS: tuple[Calibrator, ...] = (FAMILIARITY, LCF, WEIGHTWATCH, DELTA, SIREN, SPAN)
"""In the order of a bundle's detectors."""
