"""The common types of LayerGuard, as frozen dataclasses, and the index conventions.

**States.** A transformer of L blocks has L + 1 states. ``states[0]`` is the embedding output, the
input of the first block. ``states[l]``, l = 1..L, is the residual stream after block l, **before
the final norm**. Hugging Face's last ``hidden_states`` entry is *after* the final norm; exported
graphs have a separate output for it, ``final_norm``. A detector declares in its ``Tap`` which of
the two it reads as its last state.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any, Final, Literal, Protocol

import numpy.typing as npt

Array = npt.NDArray[Any]
"""Any array; each function documents its shapes and dtypes."""

View = Literal["prompt", "content", "conversation", "trajectory"]
"""How a request is laid out before it is tokenised.

``prompt``: as the served model receives it, in its template, before the answer (LCF).
``content``: request and response as plain text, without chat markers (SIREN).
``conversation``: the prompt's tokens, then the response's; every token has a role (WeightWatch).
``trajectory``: the turns and tool calls of an agent, in the format of Agent-SIREN's training data.
"""

Pooling = Literal["last", "mean", "mlp_mean", "extremes", "window", "delta"]
"""How the tokens of a text are pooled: the last one, their mean, the mean of each block's
feed-forward output, the least and largest cosine to each watched direction (``Directions``), the
window of tokens with the largest mean logit of a probe (``Probe``), or the largest length that
tuning adds to the output of each matrix (``ADDED``)."""

ADDED: Final = "delta"
"""A pooling whose row has one value for each matrix that tuning changed. Like ``mlp_mean`` it is
computed in the graph only, because it is not part of the states."""

ROLES = ("system", "user", "assistant", "tool")
"""The author of a token; arrays of roles (uint8) hold the index in this tuple."""

Semantics = Literal["block", "hf"]
"""The last state: ``block``, the residual stream before the final norm; ``hf``, after it."""

Combination = Literal["any", "all"]
"""How many of the deciding detectors must flag a text for it to be flagged."""

Status = Literal["ok", "invalid", "unread", "drifting", "unfamiliar"]
"""``invalid``: a score is not finite. An invalid reading is always flagged: it fails closed.
``unread`` (verdicts only): a part of the request could not be read.
``drifting`` (verdicts only): the share of flagged traffic no longer matches the target.
``unfamiliar`` (verdicts only): the text is unlike the calibration rows."""

OnUnfamiliar = Literal["allow", "flag", "ask"]
"""What happens with a text that is unlike the calibration rows: ``allow``: the detectors decide;
``flag``: it is flagged; ``ask``: the detectors decide, and the verdict asks for another check."""

OnUnread = Literal["flag", "allow", "refuse"]
"""What happens with a request of which no detector can read some part, such as an image: ``flag``:
it is flagged; ``allow``: the detectors decide on the rest; ``refuse``: ``InputError``."""


@dataclass(frozen=True, slots=True)
class TokenBudget:
    """How many tokens of a long text one detector reads, if it overrides the bundle's rule.

    ``head``: the first ``max_tokens``. ``head-tail``: the first ``max_tokens // 2`` and, up to
    ``max_tokens``, the last. ``sliding``: overlapping windows of ``max_tokens``, as many as hold
    the tokens of ``TextRules.max_windows`` windows of the bundle; the worst one counts. All count
    the special tokens around the text.
    """

    keep: Literal["head", "head-tail", "sliding"]
    max_tokens: int


TokenSource = tuple[View, TokenBudget | None]
"""A view of a request and its token budget: together they determine which tokens are read."""


class Directions(Protocol):
    """Watched directions of the residual stream, bound to their kernel."""

    @property
    def layers(self) -> tuple[int, ...]:
        """The states that are read."""

    def extremes(
        self,
        states: Mapping[int, Array] | Sequence[Array] | Array,
        mask: Array | None = None,
        roles: Array | None = None,
    ) -> Array:
        """The least and largest cosine of each role's tokens to each direction.

        Args:
            states: the states of one text, [tokens, hidden] by state index.
            mask: [tokens], False where a token is ignored; None: no token is.
            roles: index in ``ROLES`` of each token; None: all are the user's.

        Returns:
            float32 [4, 2, K].
        """


class Probe(Protocol):
    """A reader of every token that keeps the window with the largest mean, bound to its kernel."""

    @property
    def layers(self) -> tuple[int, ...]:
        """The states that are read, ascending."""

    @property
    def window(self) -> int:
        """Tokens of a window."""

    def windows(
        self,
        states: Mapping[int, Array] | Sequence[Array] | Array,
        mask: Array | None = None,
        into: Array | None = None,
    ) -> Array:
        """The best window of one text.

        Args:
            states: the states of the text, [tokens, hidden] by state index.
            mask: [tokens], False where a token is ignored; None: no token is.
            into: the result for the text's earlier tokens, which is updated and returned.

        Returns:
            float32 [K].
        """

    def place(self, windows: Array) -> tuple[int, int]:
        """The first token of the best window, and the token after its last one."""


Group = tuple[Pooling, Semantics, Directions | Probe | None]
"""How tokens are pooled: taps with the same group and source read the same values."""


@dataclass(frozen=True, slots=True)
class Tap:
    """What a detector reads of a text's states.

    ``directions`` is set if it pools extremes, ``probe`` if it pools windows.
    """

    view: View
    pooling: Pooling
    semantics: Semantics = "block"
    budget: TokenBudget | None = None
    directions: Directions | None = None
    probe: Probe | None = None

    @property
    def source(self) -> TokenSource:
        """The tokens that it reads: taps with the same source share the graph's rows."""
        return self.view, self.budget

    @property
    def group(self) -> Group:
        """How the tokens are pooled: taps with the same group share the pooled states."""
        return self.pooling, self.semantics, self.directions or self.probe


@dataclass(frozen=True, slots=True)
class Evidence:
    """One contribution to a score: a layer and a value, of the quantity that ``measure`` names."""

    layer: int
    measure: str
    value: float


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a text that a detector found.

    Attributes:
        start: offset of its first character in the text that the detector read: that of the turns,
            or what a chat holds beside it.
        end: offset after its last character.
        words: the part itself.
        score: its score, in the unit of the reading's.
    """

    start: int
    end: int
    words: str
    score: float


@dataclass(frozen=True, slots=True)
class Reading:
    """One detector's result on one text.

    Attributes:
        detector: name in the registry.
        score: unitless; larger is worse.
        threshold: the calibrated threshold; flagged unless ``score <= threshold``.
        p_value: conformal, in (0, 1]: (1 + #{clean >= score}) / (n + 1), the share of clean
            calibration scores that are at least this large, including the text itself.
        flagged: True if the score is above the threshold or not finite.
        evidence: the largest contributions to the score, largest first.
        status: ``ok`` or ``invalid``.
        spans: of a flagged reading of a detector that reads windows: the text's best window.
    """

    detector: str
    score: float
    threshold: float
    p_value: float
    flagged: bool
    evidence: tuple[Evidence, ...] = ()
    status: Status = "ok"
    spans: tuple[Span, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a reading that is not flagged although its score is too large or not finite."""
        if not self.flagged and not (self.score <= self.threshold and self.status == "ok"):
            raise ValueError(
                f"{self.detector}: score {self.score} ({self.status}) is not within threshold "
                f"{self.threshold}, so the reading must be flagged"
            )

    @property
    def badness(self) -> float:
        """The score; infinity if it is not finite, which is worse than any score."""
        return math.inf if self.status == "invalid" else self.score


@dataclass(frozen=True, slots=True)
class Verdict:
    """All readings of one text and the decision.

    Attributes:
        flagged: whether the text should be stopped, by the policy over the deciding readings; True
            if one of them is invalid, with any policy, or if an unfamiliar text or one with unread
            parts is to be flagged.
        status: ``invalid`` if a deciding reading is; else ``unread`` if a part of the request is;
            else ``drifting`` if the share of flagged traffic no longer matches the target; else
            ``unfamiliar`` if the text is; else ``ok``.
        reason: one sentence that explains the decision.
        readings: by detector name.
        timings_ms: milliseconds by stage: ``tokenize``, ``graph``, ``score``, ``total``. Texts
            checked as a batch share the batch's figures.
        bundle_id: the first 16 hex digits of the manifest's sha256.
        tokens: number of tokens of the longest view, before truncation.
        truncated: True if the text was longer than the bundle's window or the guard's limits, and
            part was not read.
        policy: ``any`` or ``all`` of the deciding readings, or the name of the only one.
        shadow: detectors that are read and reported but do not decide.
        p_value: conformal p-value of the whole guard, in (0, 1]: the least target at which it would
            flag this text; None if the bundle has no calibrated decision.
        domain: the domain whose thresholds were used; None for those of all traffic.
        unread_tokens: of a stream: pushed tokens that this verdict does not include yet.
        familiarity: conformal p-value of the text's distance from the calibration rows, in (0, 1];
            None if the bundle does not measure it.
        unfamiliar: whether that distance is above its threshold. The deciding detectors then have
            their largest thresholds, over all traffic and the domains.
        on_unfamiliar: what happens then.
        ask: whether a person or another check should look at the text, because it is unfamiliar.
        unread: the parts of the request that no detector read, such as ``messages[3].content[1]``:
            images, audio, files and other data, and text that is in no view of the bundle's
            detectors. Detectors that only read prompts say nothing about answers, so that answers
            are not listed for them.
        on_unread: what happens then.
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
    familiarity: float | None = None
    unfamiliar: bool = False
    on_unfamiliar: OnUnfamiliar = "allow"
    ask: bool = False
    unread: tuple[str, ...] = ()
    on_unread: OnUnread = "flag"

    def __post_init__(self) -> None:
        """Refuse a verdict that contradicts its readings."""
        deciding = [r for name, r in self.readings.items() if name not in self.shadow]
        flagged, invalid = decision_of(deciding, self.policy)
        if self.ask != (self.unfamiliar and self.on_unfamiliar == "ask"):
            raise ValueError(f"ask is {self.ask}, and the text unfamiliar: {self.unfamiliar}")
        if self.unread and self.on_unread == "refuse":
            raise ValueError(f"{', '.join(self.unread)} are unread, and such requests are refused")
        flagged |= self.unfamiliar and self.on_unfamiliar == "flag"
        flagged |= bool(self.unread) and self.on_unread == "flag"
        if self.flagged != flagged:
            count = sum(reading.flagged for reading in deciding)
            raise ValueError(
                f"flagged is {self.flagged}, and {count} of {len(deciding)} deciding readings are "
                f"flagged (policy {self.policy})"
            )
        if invalid and self.status != "invalid":
            raise ValueError(f"status is {self.status}, and a reading is invalid")
        if (self.status == "unread") != (bool(self.unread) and not invalid):
            raise ValueError(f"status is {self.status}, and {len(self.unread)} parts are unread")

    def to_json(self) -> dict[str, Any]:
        """The verdict as plain JSON types; non-finite numbers become None."""
        ready: dict[str, Any] = json_ready(self)
        return ready


def decision_of(deciding: Collection[Reading], policy: str) -> tuple[bool, bool]:
    """Whether the deciding readings flag the text, and whether one of them is invalid."""
    invalid = any(reading.status == "invalid" for reading in deciding)
    flags = [reading.flagged for reading in deciding]
    return invalid or (bool(flags) and (all if policy == "all" else any)(flags)), invalid


def worst(readings: Collection[Reading]) -> Reading:
    """The worst of several readings of one detector; an invalid one is worse than any score."""
    return max(readings, key=lambda reading: reading.badness)


def json_ready(value: Any) -> Any:
    """``value`` as plain JSON types.

    Dataclasses become objects of their fields, tuples become lists, and every NaN and infinity,
    which JSON lacks, becomes None.
    """
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: json_ready(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_ready(item) for item in value]
    if is_dataclass(value):
        return {name: json_ready(getattr(value, name)) for name in value.__dataclass_fields__}
    return value
