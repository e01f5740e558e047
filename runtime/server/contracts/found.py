"""What was found in a blocked text, and where: for contracts that report it.

No contract itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from layerguard.runtime.server.answers import Answer
from layerguard.runtime.types import Span

GUARD = "layerguard"
"""Type of the finding of the whole guard: every blocked text has one."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One reason to block a text.

    Attributes:
        type: ``layerguard``, or the name of a detector.
        start: offset of its first character in the text.
        end: offset after its last character.
        score: at least 0.5; see ``Answer.scores``.
    """

    type: str
    start: int
    end: int
    score: float


def findings(answer: Answer, text: str) -> Iterator[Finding]:
    """The findings of the guard and of each detector that blocks the text; none if nothing does.

    A detector that says where has the characters of its spans; the others have the whole text.
    """
    if not answer.blocked:
        return
    yield Finding(GUARD, 0, len(text), answer.scores[""])
    for name, score in answer.scores.items():
        if name and score >= 0.5:
            places = spans(answer, name, text) or [(0, len(text))]
            yield from (Finding(name, start, end, score) for start, end in places)


def spans(answer: Answer, detector: str, text: str) -> list[tuple[int, int]]:
    """Where in a text the spans of a detector are; those that are not found are left out."""
    found = answer.verdict.readings[detector].spans if answer.verdict else ()
    return [place for span in found for place in _places(span, text)]


def _places(span: Span, text: str) -> Iterator[tuple[int, int]]:
    """Where a span is in a text: at the same place as in the cleaned one, or where it is once."""
    if text[span.start : span.end] == span.words:
        yield span.start, span.end
    elif text.count(span.words) == 1:
        start = text.index(span.words)
        yield start, start + len(span.words)
