"""The views of a request whose answer grows; each view is read as one token sequence."""

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass

from layerguard.runtime.detectors import Detector
from layerguard.runtime.spans import with_words
from layerguard.runtime.streaming.answer import Answer
from layerguard.runtime.streaming.decode_graph import DecodeGraph
from layerguard.runtime.streaming.growing_text import GrowingContent, GrowingIds
from layerguard.runtime.streaming.pools import Pools
from layerguard.runtime.streaming.token_sequence import TokenSequence
from layerguard.runtime.text.request import joined
from layerguard.runtime.text.roles import ASSISTANT
from layerguard.runtime.text.tokens import Ids, Places, TokenReader
from layerguard.runtime.types import Array, Reading, Tap

Detectors = Mapping[str, Detector]


@dataclass(frozen=True, slots=True)
class ViewResources:
    """The decode graph and tokenizer that all views share.

    Attributes:
        decode_graph: the decode graph.
        reader: the tokenizer with the bundle's text rules.
        cuttable: whether tokenisation can be split at cuts; see ``growing_text``.
        padding: the token id that stands for an empty text.
    """

    decode_graph: DecodeGraph
    reader: TokenReader
    cuttable: bool
    padding: int

    def new_ids(self) -> GrowingIds:
        """An empty incremental tokenisation."""
        return GrowingIds(self.reader.literal, cuttable=self.cuttable)


class ContentView:
    """A plain text, cleaned as a whole (view ``content``).

    It is prompt and answer, or another text of ``Request.contents``, which does not grow.

    Attributes:
        tokens: number of tokens after the last ``tokenize``, special tokens around the text
            included.
        token_budget: the most tokens that its detectors read in one window.
    """

    def __init__(
        self,
        earlier_text: str,
        resources: ViewResources,
        detectors: Detectors,
        token_budget: int,
        *,
        grows: bool = True,
    ) -> None:
        self._earlier_text, self._resources, self._grows = earlier_text, resources, grows
        self._detectors = detectors
        self._content, self._ids = GrowingContent(), resources.new_ids()
        self._text = " "
        self._sequence = TokenSequence(resources.decode_graph, _taps(detectors))
        self._unchanged = 0
        self.tokens, self.token_budget = 0, token_budget

    @property
    def nbytes(self) -> int:
        """Size of the caches in bytes."""
        return self._sequence.nbytes

    def tokenize(self, answer: Answer) -> None:
        """Clean and tokenise the text with the answer so far."""
        answered = answer.text if self._grows else ""
        self._text = self._content.update(joined(self._earlier_text, answered))
        self._unchanged = min(self._unchanged, self._ids.update(self._text))
        self.tokens = len(self._ids.ids) + sum(map(len, self._resources.reader.frame))

    def advance(self) -> None:
        """Read the new tokens of the last ``tokenize``."""
        before, after = self._resources.reader.frame
        start = self._unchanged
        if start:
            self._sequence.replace(len(before) + start, [*self._ids.ids[start:], *after])
        else:
            framed = [*before, *self._ids.ids, *after]
            self._sequence.replace(0, framed or [self._resources.padding])
        self._unchanged = len(self._ids.ids)

    def readings(self) -> dict[str, Reading]:
        """The readings of the detectors on the tokens read so far."""
        found = _readings(self._detectors, self._sequence.pools)
        for name, reading in found.items():
            tap = self._detectors[name].tap
            if tap.probe is not None and reading.flagged and reading.status == "ok":
                (windows,) = self._sequence.pools.pooled(tap)[0]
                found[name] = with_words(reading, tap.probe, windows, self._text, self._places())
        return found

    def _places(self) -> Places:
        """The characters of each token, the special ones around the text included."""
        before, after = self._resources.reader.frame
        end = len(self._text)
        known = self._resources.reader.text_places(self._text)
        return (*((0, 0),) * len(before), *known, *((end, end),) * len(after))

    def fork(self) -> "ContentView":
        """An independent copy."""
        other = copy(self)
        other._content, other._ids = self._content.fork(), self._ids.fork()
        other._sequence = self._sequence.fork()
        return other


@dataclass(frozen=True, slots=True)
class PromptTokens:
    """The prompt as the model sees it.

    Attributes:
        ids: token ids up to the start of the answer.
        roles: index in ``ROLES`` of each token.
        earlier_answer: assistant turns before the last one, which belong to the answer.
    """

    ids: Ids
    roles: bytes
    earlier_answer: str


class ConversationView:
    """The prompt as the model sees it, then the answer (views ``prompt`` and ``conversation``).

    The prompt is read once, when the view is created. Detectors of the view ``prompt`` are scored
    then and never again. If no detector reads the answer, only the prompt is read.

    Attributes:
        tokens: number of tokens after the last ``tokenize``.
        token_budget: the most tokens that the detectors of the conversation read in one window.
        sequence: the prompt, followed by the part of the answer that was read.
        step: outputs of the last run of the decode graph.
        steering: directions removed from the states of further tokens; see
            ``DecodeGraph.advance``.
    """

    def __init__(
        self,
        prompt: PromptTokens,
        resources: ViewResources,
        at_prompt: Detectors,
        at_answer: Detectors,
        token_budget: int,
        *,
        want_logits: bool = False,
        steering: Array | None = None,
    ) -> None:
        self.steering, self._want_logits = steering, want_logits
        self._earlier_answer = prompt.earlier_answer
        self._at_answer = at_answer
        self._ids = resources.new_ids()
        self._answer: list[int] = []
        self._unchanged = 0
        self._start = self.tokens = len(prompt.ids)
        self.token_budget = token_budget
        self.sequence = TokenSequence(resources.decode_graph, _taps(at_answer))
        pools = Pools(_taps(at_prompt))
        self.step = self.sequence.extend(
            prompt.ids,
            prompt.roles,
            extra_pools=pools,
            steering=steering,
            want_logits=want_logits,
        )
        self.sequence.fix_prefix()
        self._at_prompt = _readings(at_prompt, pools)

    @property
    def nbytes(self) -> int:
        """Size of the caches in bytes."""
        return self.sequence.nbytes

    def tokenize(self, answer: Answer) -> None:
        """Tokenise the answer so far."""
        if not (self._at_answer or self._want_logits):
            return
        if answer.ids is None:
            known = self._ids.update(joined(self._earlier_answer, answer.text))
            self._unchanged = min(self._unchanged, known)
            self._answer = self._ids.ids
        else:
            self._unchanged = 0
            self._answer = answer.ids
        self.tokens = self._start + len(self._answer)

    def advance(self) -> None:
        """Read the new tokens of the last ``tokenize``."""
        start = self._unchanged
        step = self.sequence.replace(
            self._start + start,
            self._answer[start:],
            ASSISTANT,
            steering=self.steering,
            want_logits=self._want_logits,
        )
        self.step = step or self.step
        self._unchanged = len(self._answer)

    def forget(self, tokens: int) -> None:
        """Remove the last ``tokens`` tokens of the answer; ``advance`` reads them again."""
        keep = max(len(self.sequence.ids) - tokens, self._start)
        again, roles = self.sequence.roll_back(keep)
        if again:
            self.sequence.extend(again, roles, steering=self.steering)
        self._unchanged = min(self._unchanged, keep - self._start)

    def readings(self) -> dict[str, Reading]:
        """The readings of the detectors on the tokens read so far."""
        return {**self._at_prompt, **_readings(self._at_answer, self.sequence.pools)}

    def fork(self) -> "ConversationView":
        """An independent copy."""
        other = copy(self)
        other._ids, other.sequence = self._ids.fork(), self.sequence.fork()
        return other


def _taps(detectors: Detectors) -> list[Tap]:
    return [detector.tap for detector in detectors.values()]


def _readings(detectors: Detectors, pools: Pools) -> dict[str, Reading]:
    return {
        name: detector.score_pooled(pools.pooled(detector.tap))[0]
        for name, detector in detectors.items()
    }
