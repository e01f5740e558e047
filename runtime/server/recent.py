"""What was answered recently, for the page: of bounded size, and without any text."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from layerguard.runtime.server.answers import Answer

DECISIONS = 50
"""Decisions that are kept."""

SAMPLES = 1000
"""Times that are kept of each stage."""

SLOT_S = 10
"""Seconds of a slot, in which decisions are counted."""

SLOTS = 60
"""Slots that are kept: ten minutes."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One answer, without the text.

    Attributes:
        at: time of the answer, in seconds since 1970.
        contract: name of the contract.
        direction: ``request`` or ``response``.
        bundle: name of the bundle.
        decision: ``block``, ``flag``, ``pass`` or ``unchecked``.
        detectors: those that flag the text.
        p_value: of the whole guard.
        tokens: of the text, before truncation.
        truncated: whether a part of the text was not read.
        milliseconds: of the check, without the queue.
    """

    at: float
    contract: str
    direction: str
    bundle: str
    decision: str
    detectors: tuple[str, ...] = ()
    p_value: float | None = None
    tokens: int | None = None
    truncated: bool = False
    milliseconds: float | None = None


class Recent:
    """The last decisions, the last times of each stage, and counts by time; use from one thread."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """Start empty; ``clock`` gives seconds since 1970."""
        self._clock = clock
        self._decisions: deque[Decision] = deque(maxlen=DECISIONS)
        self._milliseconds: dict[str, deque[float]] = {}
        self._slots: deque[tuple[int, Counter[str]]] = deque(maxlen=SLOTS)

    def answered(self, contract: str, direction: str, answer: Answer) -> None:
        """Keep an answer's decision."""
        now = self._clock()
        self._decisions.append(_decision(now, contract, direction, answer))
        slot = int(now // SLOT_S)
        if not self._slots or self._slots[-1][0] < slot:
            self._slots.append((slot, Counter()))
        self._slots[-1][1][answer.decision] += 1

    def took(self, stage: str, milliseconds: float) -> None:
        """Keep the time of a stage."""
        if stage not in self._milliseconds:
            self._milliseconds[stage] = deque(maxlen=SAMPLES)
        self._milliseconds[stage].append(milliseconds)

    def decisions(self) -> list[dict[str, Any]]:
        """The last decisions as plain JSON types, the newest first."""
        return [asdict(decision) for decision in reversed(self._decisions)]

    def slots(self) -> list[dict[str, int]]:
        """Decisions of each of the last ``SLOTS`` slots, the present one last."""
        last = int(self._clock() // SLOT_S)
        counts = dict(self._slots)
        return [dict(counts.get(slot, {})) for slot in range(last - SLOTS + 1, last + 1)]

    def stages(self) -> Iterator[dict[str, Any]]:
        """The quantiles of each stage's last times, in milliseconds."""
        for stage, milliseconds in self._milliseconds.items():
            ranked = sorted(milliseconds)
            yield {
                "stage": stage,
                "texts": len(ranked),
                **{f"p{share}": ranked[len(ranked) * share // 100] for share in (50, 95, 99)},
            }


def _decision(now: float, contract: str, direction: str, answer: Answer) -> Decision:
    verdict = answer.verdict
    if verdict is None:
        return Decision(now, contract, direction, answer.bundle, answer.decision)
    return Decision(
        now,
        contract,
        direction,
        answer.bundle,
        answer.decision,
        tuple(name for name, reading in verdict.readings.items() if reading.flagged),
        verdict.p_value,
        verdict.tokens,
        verdict.truncated,
        verdict.timings_ms.get("total"),
    )
