"""The views of a request whose answer grows, each read as a track of its own."""

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass

from layerguard.runtime.detectors import Detector
from layerguard.runtime.streaming.answer import Answer
from layerguard.runtime.streaming.decoder import Decoder
from layerguard.runtime.streaming.growing import GrowingContent, GrowingIds
from layerguard.runtime.streaming.pools import Pools
from layerguard.runtime.streaming.track import Track
from layerguard.runtime.text.roles import ASSISTANT
from layerguard.runtime.text.tokens import Ids, TokenReader
from layerguard.runtime.types import Array, Reading, Tap

Detectors = Mapping[str, Detector]


@dataclass(frozen=True, slots=True)
class Means:
    """What every view is read with: the decode graph, and the tokenizer with its rules.

    Attributes:
        decoder: the decode graph.
        reader: the tokenizer.
        cuttable: whether its ids fall apart at cuts; see ``growing``.
        padding: what stands for a text of no token at all.
    """

    decoder: Decoder
    reader: TokenReader
    cuttable: bool
    padding: int

    def ids(self) -> GrowingIds:
        """The ids of a text that grows."""
        return GrowingIds(self.reader.literal, cuttable=self.cuttable)


class ContentView:
    """Prompt and answer as plain text, cleaned as a whole (view ``content``).

    Attributes:
        tokens: of the view as it was laid out last, the frame included.
        room: the most tokens that its detectors read in one window.
    """

    def __init__(self, said: str, means: Means, detectors: Detectors, room: int) -> None:
        self._said, self._means, self._detectors = said, means, detectors
        self._content, self._ids = GrowingContent(), means.ids()
        self._track = Track(means.decoder, _taps(detectors))
        self._unchanged = 0
        self.tokens, self.room = 0, room

    @property
    def nbytes(self) -> int:
        """Memory of the caches in bytes."""
        return self._track.nbytes

    def lay_out(self, answer: Answer) -> None:
        """Clean and tokenise what is said by now."""
        text = self._content.update(joined(self._said, answer.text))
        self._unchanged = min(self._unchanged, self._ids.update(text))
        self.tokens = len(self._ids.ids) + sum(map(len, self._means.reader.frame))

    def advance(self) -> None:
        """Read what was laid out."""
        before, after = self._means.reader.frame
        start = self._unchanged
        if start:
            self._track.replace(len(before) + start, [*self._ids.ids[start:], *after])
        else:
            framed = [*before, *self._ids.ids, *after]
            self._track.replace(0, framed or [self._means.padding])
        self._unchanged = len(self._ids.ids)

    def readings(self) -> dict[str, Reading]:
        """What each detector says of what was read."""
        return _readings(self._detectors, self._track.pools)

    def fork(self) -> "ContentView":
        """The same, to be continued apart."""
        other = copy(self)
        other._content, other._ids = self._content.fork(), self._ids.fork()
        other._track = self._track.fork()
        return other


@dataclass(frozen=True, slots=True)
class Opening:
    """The prompt as the model sees it: ids, the role of each, and what of the answer stands."""

    ids: Ids
    roles: bytes
    answered: str


class ConversationView:
    """The prompt as the model sees it, then the answer (views ``prompt`` and ``conversation``).

    The prompt is read once, when the view is made: its detectors say what they say at its end.
    Where no detector reads the answer, nothing more is read.

    Attributes:
        tokens: of the view as it was laid out last.
        room: the most tokens that the detectors of the conversation read in one window.
        track: the prompt, and the answer behind it as far as it was read.
        step: what the decode graph gave for the tokens read last.
        steering: what the states of further tokens lose; see ``Decoder.advance``.
    """

    def __init__(
        self,
        opening: Opening,
        means: Means,
        at_prompt: Detectors,
        at_answer: Detectors,
        room: int,
        *,
        want_logits: bool = False,
        steering: Array | None = None,
    ) -> None:
        self.steering, self._want_logits = steering, want_logits
        self._answered = opening.answered
        self._at_answer = at_answer
        self._ids = means.ids()
        self._answer: list[int] = []
        self._unchanged = 0
        self._start = self.tokens = len(opening.ids)
        self.room = room
        self.track = Track(means.decoder, _taps(at_answer))
        pools = Pools(_taps(at_prompt))
        self.step = self.track.extend(
            opening.ids, opening.roles, also=pools, steering=steering, want_logits=want_logits
        )
        self.track.settle()
        self._at_prompt = _readings(at_prompt, pools)

    @property
    def nbytes(self) -> int:
        """Memory of the caches in bytes."""
        return self.track.nbytes

    def lay_out(self, answer: Answer) -> None:
        """Tokenise what is answered by now."""
        if not (self._at_answer or self._want_logits):
            return
        if answer.ids is None:
            known = self._ids.update(joined(self._answered, answer.text))
            self._unchanged = min(self._unchanged, known)
            self._answer = self._ids.ids
        else:
            self._unchanged = 0
            self._answer = answer.ids
        self.tokens = self._start + len(self._answer)

    def advance(self) -> None:
        """Read what was laid out."""
        start = self._unchanged
        step = self.track.replace(
            self._start + start,
            self._answer[start:],
            ASSISTANT,
            steering=self.steering,
            want_logits=self._want_logits,
        )
        self.step = step or self.step
        self._unchanged = len(self._answer)

    def forget(self, tokens: int) -> None:
        """Read the last so many tokens of the answer anew when advancing next."""
        keep = max(len(self.track.ids) - tokens, self._start)
        again, roles = self.track.go_back(keep)
        if again:
            self.track.extend(again, roles, steering=self.steering)
        self._unchanged = min(self._unchanged, keep - self._start)

    def readings(self) -> dict[str, Reading]:
        """What each detector says of what was read."""
        return {**self._at_prompt, **_readings(self._at_answer, self.track.pools)}

    def fork(self) -> "ConversationView":
        """The same, to be continued apart."""
        other = copy(self)
        other._ids, other.track = self._ids.fork(), self.track.fork()
        return other


def joined(first: str, second: str) -> str:
    """Two parts of what was said, on lines of their own where there are two."""
    return f"{first}\n{second}" if first and second else first or second


def _taps(detectors: Detectors) -> list[Tap]:
    return [detector.tap for detector in detectors.values()]


def _readings(detectors: Detectors, pools: Pools) -> dict[str, Reading]:
    return {
        name: detector.score_pooled(pools.of(detector.tap))[0]
        for name, detector in detectors.items()
    }
