"""The events that guarded generation yields."""

from dataclasses import dataclass
from typing import Literal

from layerguard.runtime.types import Verdict

OnFlag = Literal["abstain", "steer", "log"]
"""What to do with a flagged answer.

``abstain``: withhold the answer. No text is returned before the answer is complete.
``steer``: remove the directions that WeightWatch flagged from the model's states, and continue.
``log``: continue.
"""

Finish = Literal["end", "stop", "length", "withheld"]
"""Why an answer ended. ``end``: the model ended it; ``stop``: a stop string was generated;
``length``: ``max_new_tokens`` or the window is full; ``withheld``: the answer was flagged."""

WITHHELD = "[Output withheld by safety filter.]"
"""Text that replaces a flagged answer, as published (LCF, arXiv 2604.24542)."""


@dataclass(frozen=True, slots=True)
class Event:
    """One step of a guarded answer.

    The concatenated texts of all events are the text that may be shown.

    Attributes:
        kind: ``prompt`` once after the prompt, ``token`` for each generated token, ``end`` once.
        text: text released by this event; may be empty.
        token_id: the generated token; None for the other kinds.
        verdict: verdict on the prompt and the answer so far.
        finish: why the answer ended; None before the end.
        steered: directions removed from the states so far, such as ``layer 3 down_proj u0``.
    """

    kind: Literal["prompt", "token", "end"]
    text: str
    token_id: int | None
    verdict: Verdict
    finish: Finish | None = None
    steered: tuple[str, ...] = ()
