"""The words of LayerGuard as frozen types; the one place where the index conventions are written.

**States.** A transformer of L blocks has L + 1 states. ``states[0]`` is the embedding output, that
is the input of the first block; ``states[l]``, l = 1..L, is the residual stream after block l,
**before the final norm**. Hugging Face's last ``hidden_states`` entry is *after* the final norm;
exported graphs give that under its own name, ``final_norm``. A detector declares in its ``Tap``
which of the two it reads as its last state.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

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

Combination = Literal["any", "all"]
"""How many of the deciding detectors must flag before the text is."""

Status = Literal["ok", "invalid", "drifting"]
"""``invalid``: a score is not finite. An invalid reading is always flagged: it fails closed.
``drifting``: of a verdict; the share of flagged traffic no longer matches the target."""


@dataclass(frozen=True, slots=True)
class Limit:
    """How much of a long text one detector reads, where that is not the bundle's own rule.

    ``head``: the first ``max_tokens``. ``head-tail``: the first ``max_tokens // 2`` and, up to
    ``max_tokens``, the last. Both count the special tokens around the text.
    """

    keep: Literal["head", "head-tail"]
    max_tokens: int


Source = tuple[View, Limit | None]
"""A view of a request and how much of it: together they say which tokens are read."""


class Directions(Protocol):
    """Watched directions of the residual stream, bound to the kernel that reads them."""

    @property
    def layers(self) -> tuple[int, ...]:
        """The states that are read."""

    def extremes(self, states: Mapping[int, Array], *, roles: Array | None = None) -> Array:
        """Of each role, the least and largest cosine of its tokens to each direction.

        Args:
            states: of one text, [tokens, hidden] by state index.
            roles: index in ``ROLES`` of each token; None: all are the user's.

        Returns:
            float32 [4, 2, K].
        """


Group = tuple[Pooling, Semantics, Directions | None]
"""How tokens are pooled: taps of one group and source read the same numbers."""


@dataclass(frozen=True, slots=True)
class Tap:
    """What a detector needs from the states of one text; ``directions`` where it pools extremes."""

    view: View
    pooling: Pooling
    semantics: Semantics = "block"
    limit: Limit | None = None
    directions: Directions | None = None

    @property
    def source(self) -> Source:
        """The tokens that it reads: taps of one source share the graph's rows."""
        return self.view, self.limit

    @property
    def group(self) -> Group:
        """What becomes of the tokens: taps of one group share the pooled states."""
        return self.pooling, self.semantics, self.directions


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
        flagged: whether the text is to be stopped, by the policy over the deciding readings; True
            when one of them is invalid, whatever the policy.
        status: ``invalid`` when a deciding reading is; else ``drifting`` when the share of flagged
            traffic no longer matches the target; else ``ok``.
        reason: one sentence for a person.
        readings: by detector name.
        timings_ms: milliseconds by stage: ``tokenize``, ``graph``, ``score``, ``total``. Texts
            checked as a batch share the batch's figures.
        bundle_id: the first 16 hex digits of the manifest's sha256.
        tokens: tokens of the longest view read, before any were left out.
        truncated: True when the text was longer than the bundle's window and part was not read.
        policy: ``any`` or ``all`` of the deciding readings, or the name of the only one.
        shadow: detectors that are read and reported, and never decide.
        p_value: conformal, of the whole guard, in (0, 1]: the least target at which it would flag
            this text; None where the bundle has no calibrated decision.
        domain: the kind of traffic whose thresholds were used; None for those of all traffic.
        unread_tokens: of a stream: tokens pushed that this verdict has not seen yet.
    """

    flagged: bool
    status: Status
    reason: str
    readings: Mapping[str, Reading]
    timings_ms: Mapping[str, float]
    bundle_id: str
    tokens: int
    truncated: bool
    policy: str = "any"
    shadow: tuple[str, ...] = ()
    p_value: float | None = None
    domain: str | None = None
    unread_tokens: int = 0

    def __post_init__(self) -> None:
        """Refuse a verdict that says less than its readings."""
        deciding = [r for name, r in self.readings.items() if name not in self.shadow]
        flagged, invalid = decision_of(deciding, self.policy)
        if self.flagged != flagged:
            count = sum(reading.flagged for reading in deciding)
            raise ValueError(
                f"flagged is {self.flagged}, and {count} of {len(deciding)} deciding readings are "
                f"flagged (policy {self.policy})"
            )
        if invalid and self.status != "invalid":
            raise ValueError(f"status is {self.status}, and a reading is invalid")

    def to_json(self) -> dict[str, Any]:
        """The verdict as plain JSON types; non-finite numbers become None."""
        finite: dict[str, Any] = json_ready(asdict(self))
        return finite


def decision_of(deciding: Collection[Reading], policy: str) -> tuple[bool, bool]:
    """Whether the deciding readings flag the text together, and whether one of them is invalid."""
    invalid = any(reading.status == "invalid" for reading in deciding)
    flags = [reading.flagged for reading in deciding]
    return invalid or (bool(flags) and (all if policy == "all" else any)(flags)), invalid


def json_ready(value: Any) -> Any:
    """``value`` with every NaN and infinity replaced by None, which is what JSON can say."""
    if isinstance(value, dict):
        return {key: json_ready(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_ready(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
