"""What guarded generation reports, step by step."""

from dataclasses import dataclass
from typing import Literal

from layerguard.runtime.types import Verdict

OnFlag = Literal["abstain", "steer", "log"]
"""What becomes of an answer that is flagged.

``abstain``: nothing of it leaves, so no text leaves before its end. ``steer``: the directions that
WeightWatch found are taken out of the model's states, and it goes on. ``log``: it goes on.
"""

Finish = Literal["end", "stop", "length", "withheld"]
"""Why an answer ended: the model ended it, a stop string came, ``max_new_tokens`` were made, or it
was flagged and withheld."""

WITHHELD = "[Output withheld by safety filter.]"
"""What leaves instead of a flagged answer, as published (LCF, arXiv 2604.24542)."""


@dataclass(frozen=True, slots=True)
class Event:
    """One step of a guarded answer.

    The texts of all events together are what may be shown.

    Attributes:
        kind: ``prompt`` once the prompt is read, ``token`` for each token made, ``end`` once.
        text: what leaves with this event; may be empty.
        token_id: the token made; None of the other kinds.
        verdict: on the prompt and the answer so far.
        finish: why the answer ended; None before the end.
        steered: directions taken out of the states so far, such as ``layer 3 down_proj u0``.
    """

    kind: Literal["prompt", "token", "end"]
    text: str
    token_id: int | None
    verdict: Verdict
    finish: Finish | None = None
    steered: tuple[str, ...] = ()
