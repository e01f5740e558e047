"""The guarded decode loop: draw a token, read it, judge all that was read, decide what leaves."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from layerguard.runtime.errors import InputError
from layerguard.runtime.generation.event import WITHHELD, Event, Finish, OnFlag
from layerguard.runtime.generation.sampling import Sampler
from layerguard.runtime.generation.steering import Steering, mended
from layerguard.runtime.generation.stop import StopText
from layerguard.runtime.streaming.stream import Stream
from layerguard.runtime.streaming.views import ConversationView
from layerguard.runtime.types import Array, Verdict

OpenStream = Callable[[Array | None], Stream]
"""A stream of the prompt that is ready to generate, its states steered so."""

_ROUNDS = 8
"""A prompt or token is read anew at most so often: what is taken out of one block may bring another
direction forward in a later one."""

_INCOMPLETE = "\ufffd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to generate.

    Attributes:
        max_new_tokens: the most tokens that are made.
        on_flag: see ``OnFlag``.
        sampler: draws the tokens.
        stop: texts that end the answer; they are not part of it.
        end_token_ids: tokens with which the model ends its answer.
    """

    max_new_tokens: int
    on_flag: OnFlag
    sampler: Sampler
    stop: Sequence[str]
    end_token_ids: Collection[int]


class _Read(NamedTuple):
    """Something was read: the verdict before anything was taken out, and whether all is well."""

    verdict: Verdict
    well: bool


class Generation:
    """One guarded answer."""

    def __init__(
        self, open_stream: OpenStream, settings: Settings, steering: Steering | None
    ) -> None:
        self._open_stream, self._settings, self._steering = open_stream, settings, steering
        self._stop = StopText(settings.stop)
        self._shown = 0

    def events(self) -> Iterator[Event]:
        """The prompt, each token, the end; see ``Event``.

        Raises:
            InputError: the prompt leaves no room in the window, or cannot be read token by token.
            BundleError: the graph fails.
        """
        stream, read = self._read_prompt()
        with stream:
            conversation = _conversation(stream)
            yield self._event("prompt", read.verdict)
            held: list[str] = []
            verdict, made = read.verdict, 0
            while True:
                finish = self._finish(stream, conversation, made, well=read.well)
                if finish:
                    break
                token = self._settings.sampler.draw(_logits(conversation))
                if token in self._settings.end_token_ids:
                    finish = "end"
                    break
                made += 1
                read = self._read_token(stream, conversation, token)
                verdict = read.verdict
                text = self._stop.push(self._new_text(stream))
                if self._settings.on_flag == "abstain" or not read.well:
                    held.append(text)
                    text = ""
                yield self._event("token", verdict, text, token)
            if finish == "withheld":
                yield self._event("end", verdict, WITHHELD, finish=finish)
                return
            rest = self._stop.push(stream.text[self._shown :]) + self._stop.finish()
            yield self._event("end", verdict, "".join([*held, rest]), finish=finish)

    def _finish(
        self, stream: Stream, conversation: ConversationView, made: int, *, well: bool
    ) -> Finish | None:
        """Why no further token is made, or None."""
        if not well:
            return "withheld"
        if self._stop.stopped:
            return "stop"
        full = stream.rescoring is not None or conversation.tokens >= conversation.room
        return "length" if full or made == self._settings.max_new_tokens else None

    def _new_text(self, stream: Stream) -> str:
        """What the answer has gained; a character that is not complete waits."""
        text = stream.text.rstrip(_INCOMPLETE)
        new = text[self._shown :]
        self._shown = max(self._shown, len(text))
        return new

    def _read_prompt(self) -> tuple[Stream, _Read]:
        stream = self._open_stream(None)
        first = stream.verdict
        for _ in range(_ROUNDS):
            basis = self._more_to_steer(_conversation(stream))
            if basis is None:
                break
            stream = self._open_stream(basis)
        return stream, self._judged(first, stream.verdict)

    def _read_token(self, stream: Stream, conversation: ConversationView, token: int) -> _Read:
        first = stream.push([token])
        for _ in range(_ROUNDS):
            basis = self._more_to_steer(conversation)
            if basis is None:
                break
            conversation.steering = basis
            stream.reread(1)
        return self._judged(first, stream.verdict)

    def _more_to_steer(self, conversation: ConversationView) -> Array | None:
        """The basis to read the latest tokens with once more; None where they are well."""
        if self._steering is None or not self._steering.look(conversation.track.pools):
            return None
        return self._steering.basis

    def _judged(self, first: Verdict, last: Verdict) -> _Read:
        well = mended(last) if self._settings.on_flag == "steer" else not last.flagged
        return _Read(first, well=well or self._settings.on_flag == "log")

    def _event(
        self,
        kind: Literal["prompt", "token", "end"],
        verdict: Verdict,
        text: str = "",
        token: int | None = None,
        finish: Finish | None = None,
    ) -> Event:
        steered = self._steering.names if self._steering else ()
        return Event(kind, text, token, verdict, finish, steered)


def _conversation(stream: Stream) -> ConversationView:
    found = stream.conversation
    if found is None:
        raise InputError(
            f"no answer can be generated: {stream.rescoring}; expected a decoder's bundle with a "
            "decode graph, and a prompt that leaves room in its window"
        )
    return found


def _logits(conversation: ConversationView) -> Array:
    logits = conversation.step.logits
    assert logits is not None, "the view was opened for logits"
    return logits
