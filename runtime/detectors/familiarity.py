"""Familiarity: is this text like those that the guard was calibrated on?

It never decides whether a text is harmful. Float64 oracle in ``tests/reference/familiarity.py``.
Reads the mean over tokens of the middle state: the distance to the nearest centre of the rows,
sqrt(min_k (|z|^2 - sum_r (d_r . z)^2)), z = (x - c_k) / scale. That is the Mahalanobis distance
under a covariance of a few directions and equal variance beside them: probabilistic principal
components, Tipping and Bishop, "Probabilistic Principal Component Analysis", 1999. The evidence is
the number of the nearest centre.
"""

from layerguard.runtime.detectors.kind import DetectorKind
from layerguard.runtime.types import Tap

KIND = DetectorKind(
    name="familiarity",
    question="is this text like those that the guard was calibrated on?",
    tap=Tap(view="prompt", pooling="mean"),
    measure=lambda _: lambda place: f"distance to centre {place}",
    decides=False,
)
