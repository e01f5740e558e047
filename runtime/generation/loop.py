"""The guarded decode loop: sample a token, read it, check the text, decide what to release."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from layerguard.runtime.errors import InputError
from layerguard.runtime.generation.event import WITHHELD, Event, Finish, OnFlag
from layerguard.runtime.generation.sampling import Sampler
from layerguard.runtime.generation.steering import Steering, is_acceptable
from layerguard.runtime.generation.stop import StopText
from layerguard.runtime.streaming.stream import Stream
from layerguard.runtime.streaming.views import ConversationView
from layerguard.runtime.types import Array, Verdict

OpenStream = Callable[[Array | None], Stream]
"""Opens a stream of the prompt whose states are steered by the given basis."""

_MAX_STEERING_ROUNDS = 8
"""Most times that a prompt or token is read again. Removing a direction in one block can raise
another direction in a later block, so one round may not be enough."""

_INCOMPLETE = "\ufffd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of one generation.

    Attributes:
        max_new_tokens: most tokens to generate.
        on_flag: see ``OnFlag``.
        sampler: samples the tokens.
        stop: texts that end the answer; they are not part of it.
        end_token_ids: tokens with which the model ends an answer.
    """

    max_new_tokens: int
    on_flag: OnFlag
    sampler: Sampler
    stop: Sequence[str]
    end_token_ids: Collection[int]


class _Outcome(NamedTuple):
    """The verdict before steering was applied, and whether the text may be released."""

    verdict: Verdict
    acceptable: bool


class Generation:
    """One guarded answer."""

    def __init__(
        self, open_stream: OpenStream, settings: Settings, steering: Steering | None
    ) -> None:
        self._open_stream, self._settings, self._steering = open_stream, settings, steering
        self._stop = StopText(settings.stop)
        self._shown = 0

    def events(self) -> Iterator[Event]:
        """Yield one event for the prompt, one for each token, one at the end; see ``Event``.

        Raises:
            InputError: the prompt fills the window, or it cannot be read token by token.
            BundleError: the graph fails.
        """
        stream, outcome = self._read_prompt()
        with stream:
            conversation = _conversation(stream)
            yield self._event("prompt", outcome.verdict)
            held: list[str] = []
            verdict, generated = outcome.verdict, 0
            while True:
                finish = self._finish(
                    stream, conversation, generated, acceptable=outcome.acceptable
                )
                if finish:
                    break
                token = self._settings.sampler.draw(_logits(conversation))
                if token in self._settings.end_token_ids:
                    finish = "end"
                    break
                generated += 1
                outcome = self._read_token(stream, conversation, token)
                verdict = outcome.verdict
                text = self._stop.push(self._new_text(stream))
                if self._settings.on_flag == "abstain" or not outcome.acceptable:
                    held.append(text)
                    text = ""
                yield self._event("token", verdict, text, token)
            if finish == "withheld":
                yield self._event("end", verdict, WITHHELD, finish=finish)
                return
            rest = self._stop.push(stream.text[self._shown :]) + self._stop.finish()
            yield self._event("end", verdict, "".join([*held, rest]), finish=finish)

    def _finish(
        self, stream: Stream, conversation: ConversationView, generated: int, *, acceptable: bool
    ) -> Finish | None:
        """Why generation must end now; None to continue."""
        if not acceptable:
            return "withheld"
        if self._stop.stopped:
            return "stop"
        full = stream.rescoring is not None or conversation.tokens >= conversation.token_budget
        return "length" if full or generated == self._settings.max_new_tokens else None

    def _new_text(self, stream: Stream) -> str:
        """The new text of the answer, without an incomplete character at its end."""
        text = stream.text.rstrip(_INCOMPLETE)
        new = text[self._shown :]
        self._shown = max(self._shown, len(text))
        return new

    def _read_prompt(self) -> tuple[Stream, _Outcome]:
        stream = self._open_stream(None)
        first = stream.verdict
        for _ in range(_MAX_STEERING_ROUNDS):
            basis = self._more_to_steer(_conversation(stream))
            if basis is None:
                break
            stream = self._open_stream(basis)
        return stream, self._outcome(first, stream.verdict)

    def _read_token(self, stream: Stream, conversation: ConversationView, token: int) -> _Outcome:
        first = stream.push([token])
        for _ in range(_MAX_STEERING_ROUNDS):
            basis = self._more_to_steer(conversation)
            if basis is None:
                break
            conversation.steering = basis
            stream.reread(1)
        return self._outcome(first, stream.verdict)

    def _more_to_steer(self, conversation: ConversationView) -> Array | None:
        """The basis with which the latest tokens must be read again; None if not needed."""
        if self._steering is None or not self._steering.update(conversation.sequence.pools):
            return None
        return self._steering.basis

    def _outcome(self, first: Verdict, last: Verdict) -> _Outcome:
        if self._steering is None:
            acceptable = not last.flagged
        else:
            acceptable = is_acceptable(last, self._steering.detector)
        return _Outcome(first, acceptable=acceptable or self._settings.on_flag == "log")

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
    conversation = stream.conversation
    if conversation is None:
        raise InputError(
            f"no answer can be generated: {stream.rescoring}; expected the bundle of a decoder "
            "with a decode graph, and a prompt that is shorter than its window"
        )
    return conversation


def _logits(conversation: ConversationView) -> Array:
    logits = conversation.step.logits
    assert logits is not None, "the view was opened for logits"
    return logits
