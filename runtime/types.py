"""The words of LayerGuard as frozen types; the one place where the index conventions are written.

**States.** A transformer of L blocks has L + 1 states. ``states[0]`` is the embedding output, that
is the input of the first block; ``states[l]``, l = 1..L, is the residual stream after block l,
**before the final norm**. Hugging Face's last ``hidden_states`` entry is *after* the final norm;
exported graphs give that under its own name, ``final_norm``. A detector declares in its ``Tap``
which of the two it reads as its last state.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy.typing as npt

Array = npt.NDArray[Any]
"""Any array; shapes and dtypes are said where one is taken."""

View = Literal["prompt", "content", "conversation", "trajectory"]
"""How a request is laid out before it is tokenised.

``prompt``: as the served model sees it, in its template, up to where the answer begins (LCF).
``content``: request and response as plain text, chat markers cleaned (SIREN).
``conversation``: the prompt's tokens, then the response's; every token has a role (WeightWatch).
``trajectory``: the turns and tools of an agent, laid out as Agent-SIREN was trained on them.
"""

Pooling = Literal["last", "mean", "mlp_mean", "extremes"]
"""What becomes of a text's tokens: the last one, their mean, the mean of each block's feed-forward
output, or the least and largest cosine to each watched direction (see ``Directions``)."""

ROLES = ("system", "user", "assistant", "tool")
"""Whose token it is; its index here is what arrays of roles hold (uint8)."""

Semantics = Literal["block", "hf"]
"""The last state: ``block``, the residual before the final norm; ``hf``, the value after it."""

Status = Literal["ok", "invalid", "drifting"]
"""``invalid``: a score is not finite. An invalid reading is always flagged: it fails closed.
``drifting``: of a verdict; the share of flagged traffic no longer matches the target."""


@dataclass(frozen=True, slots=True)
class Tap:
    """What a detector needs from the states of one text."""

    view: View
    pooling: Pooling
    semantics: Semantics = "block"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One thing that moved a score: a layer, and how far (in the unit that ``measure`` names)."""

    layer: int
    measure: str
    value: float


@dataclass(frozen=True, slots=True)
class Reading:
    """One detector's answer about one text.

    Attributes:
        detector: name in the registry.
        score: unitless; larger is worse.
        threshold: the calibrated limit; flagged unless ``score <= threshold``.
        p_value: conformal, in (0, 1]: share of clean calibration scores at least this large,
            counting the text itself, (1 + #{clean >= score}) / (n + 1).
        flagged: True when the score is above the threshold or not finite.
        evidence: what moved the score most, largest first.
        status: ``ok`` or ``invalid``.
    """

    detector: str
    score: float
    threshold: float
    p_value: float
    flagged: bool
    evidence: tuple[Evidence, ...] = ()
    status: Status = "ok"

    def __post_init__(self) -> None:
        """Refuse a reading that would let a non-finite or excessive score pass."""
        if not self.flagged and not (self.score <= self.threshold and self.status == "ok"):
            raise ValueError(
                f"{self.detector}: score {self.score} ({self.status}) is not within threshold "
                f"{self.threshold}, so the reading must be flagged"
            )


@dataclass(frozen=True, slots=True)
class Verdict:
    """All readings of one text, one decision.

    Attributes:
        flagged: True when any reading is flagged.
        status: ``invalid`` when any reading is.
        reason: one sentence for a person.
        readings: by detector name.
        timings_ms: milliseconds by stage: ``tokenize``, ``graph``, ``score``, ``total``. Texts
            checked as a batch share the batch's figures.
        bundle_id: the first 16 hex digits of the manifest's sha256.
        tokens: tokens of the longest view read, before any were left out.
        truncated: True when the text was longer than the bundle's window and part was not read.
    """

    flagged: bool
    status: Status
    reason: str
    readings: Mapping[str, Reading]
    timings_ms: Mapping[str, float]
    bundle_id: str
    tokens: int
    truncated: bool

    def __post_init__(self) -> None:
        """Refuse a verdict that says less than its readings."""
        flagged = [reading for reading in self.readings.values() if reading.flagged]
        if self.flagged != bool(flagged):
            raise ValueError(f"flagged is {self.flagged}, and {len(flagged)} readings are flagged")
        if self.status == "ok" and any(reading.status == "invalid" for reading in flagged):
            raise ValueError("status is ok, and a reading is invalid")

    def to_json(self) -> dict[str, Any]:
        """The verdict as plain JSON types; non-finite numbers become None."""
        finite: dict[str, Any] = _finite(asdict(self))
        return finite


def _finite(value: Any) -> Any:
    """``value`` with every NaN and infinity replaced by None, which is what JSON can say."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
