"""LCF: is this prompt's layer trajectory unlike clean traffic?

Layerwise Convergence Fingerprints, arXiv 2604.24542, section "Method"; float64 oracle in
``tests/reference/lcf.py``. Reads the last token of all L + 1 states:
z_l = (||(h_{l+1} - h_l - mu_l) / sigma_l|| - m_l) / s_l, score = sqrt((z - c)' P (z - c)).
The evidence is the layers with the largest |z|.
"""

from layerguard.runtime.detectors.kind import DetectorKind, always
from layerguard.runtime.types import Tap

KIND = DetectorKind(
    name="lcf",
    question="is this prompt's layer trajectory unlike clean traffic?",
    tap=Tap(view="prompt", pooling="last"),
    measure=always("z"),
)
