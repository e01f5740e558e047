"""``Stream``: verdicts on a request whose answer is still being written."""

import os
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, replace
from time import perf_counter
from types import TracebackType
from typing import Protocol, Self

from layerguard.runtime.errors import InputError
from layerguard.runtime.streaming.answer import Answer, AnswerState, Chunk
from layerguard.runtime.streaming.growing_request import GrowingRequest
from layerguard.runtime.streaming.view_factory import ViewFactory, Views
from layerguard.runtime.streaming.views import ConversationView
from layerguard.runtime.text.request import Request
from layerguard.runtime.types import Array, Reading, Verdict, worst

DEFAULT_STRIDE = 32
"""Tokens between two checks if a stream must check its whole text each time. A stream of n tokens
then costs n / 32 checks, and at most about two sentences are unread."""

_LONG = "the text is longer than the bundle's window"


class Assemble(Protocol):
    """The guard's function from readings to a verdict."""

    def __call__(
        self, readings: Mapping[str, Reading], timings: Mapping[str, float], *, tokens: int
    ) -> Verdict:
        """The verdict; ``tokens`` is the length of the longest view."""


@dataclass(frozen=True, slots=True)
class GuardCallbacks:
    """The functions of the guard that a stream calls.

    Attributes:
        assemble: makes a verdict from readings.
        check: checks a whole request.
        count: records the verdict of a finished text in the flag-rate monitor.
    """

    assemble: Assemble
    check: Callable[[Request], Verdict]
    count: Callable[[Verdict], None]


@dataclass(frozen=True, slots=True, eq=False)
class Mark:
    """A saved state of a stream, made by ``Stream.mark``, for ``Stream.rollback``."""

    request: GrowingRequest
    answer: AnswerState
    verdict: Verdict
    read: int


class Stream:
    """A request whose answer grows with each push; made by ``Guard.stream``.

    After each push the verdict equals the one of ``Guard.check`` on the request with the answer so
    far; scores differ by at most 1e-5 (1 + |score|) in float32. Each token is read once.
    If the text cannot be read token by token (``rescoring`` gives the reason), the whole text is
    checked every ``stride`` tokens. ``verdict.unread_tokens`` counts the tokens that the verdict
    does not cover.

    Use a stream from one thread at a time. Different streams are independent.

    Attributes:
        verdict: the latest verdict; still available after ``close``.
        rescoring: why the whole text is checked each time; None if it is read token by token.
    """

    def __init__(
        self,
        factory: ViewFactory,
        request: Request,
        callbacks: GuardCallbacks,
        stride: int = DEFAULT_STRIDE,
        *,
        want_logits: bool = False,
        steering: Array | None = None,
    ) -> None:
        """Read the prompt and the beginning of the answer, if the request has one.

        Args:
            factory: creates the views; shared by all streams of a guard.
            request: a prompt with or without the beginning of its response, or a chat.
            callbacks: functions of the guard.
            stride: most unread tokens if the whole text is checked each time.
            want_logits: whether the answer will be generated; see ``conversation``.
            steering: directions removed from the prompt's states; see ``DecodeGraph.advance``.

        Raises:
            InputError: the stride is not at least 1, or the chat template refuses the messages.
        """
        if not isinstance(stride, int) or stride < 1:
            raise InputError(f"stride {stride!r}; expected a whole number of tokens, at least 1")
        self._factory, self._callbacks, self._stride = factory, callbacks, stride
        self._request = GrowingRequest.split(request)
        self._answer = Answer(
            self._request.answer_start, factory.reader.tokenizer, factory.vocabulary
        )
        self._read = 0
        self._open = True
        self._process = os.getpid()
        self.rescoring = factory.rescoring
        views: Views | None = []
        if not self.rescoring:
            views = factory.views(self._request, want_logits=want_logits, steering=steering)
        if views is None:
            self.rescoring = _LONG
        self._views: Views = views or []
        self.verdict = self._checked(now=True)

    @property
    def nbytes(self) -> int:
        """Size of the caches in bytes; at most one window for each view."""
        return sum(view.nbytes for view in self._views)

    @property
    def text(self) -> str:
        """The answer so far; an incomplete character at its end may appear as U+FFFD."""
        return self._answer.text

    @property
    def conversation(self) -> ConversationView | None:
        """The conversation view; None if no detector needs it and no answer is generated."""
        views = [view for view in self._views if isinstance(view, ConversationView)]
        return views[0] if views else None

    def reread(self, tokens: int) -> Verdict:
        """Read the last ``tokens`` tokens of the conversation again, with its current steering."""
        self._need_open()
        if self.conversation:
            self.conversation.forget(tokens)
        return self._update(now=True)

    def push(self, chunk: Chunk) -> Verdict:
        """Append a chunk to the answer.

        Args:
            chunk: text; or UTF-8 bytes, which may end within a character; or token ids of the
                bundle's own tokenizer, as the served model emits them. One stream takes either text
                and bytes, or ids.

        Returns:
            The verdict on everything pushed so far. ``unread_tokens`` counts an incomplete
            character as one token.

        Raises:
            InputError: the chunk has another type, or the stream is closed. The stream is
                unchanged.
            BundleError: the graph fails; the stream is closed.
        """
        self._need_open()
        self._answer.push(chunk)
        return self._update(now=False)

    def finish(self) -> Verdict:
        """End the answer: read all unread tokens; bytes of an incomplete character become U+FFFD.

        Returns:
            The verdict on the whole answer.
        """
        self._need_open()
        self._answer.finish()
        return self._update(now=True)

    def mark(self) -> Mark:
        """Save the current state for ``rollback``."""
        self._need_open()
        return Mark(self._request, self._answer.state(), self.verdict, self._read)

    def rollback(self, mark: Mark) -> Verdict:
        """Return to a saved state of this stream, or of the stream that it was forked from.

        The state may be earlier or later than the current one.

        Returns:
            The verdict of that state.

        Raises:
            InputError: the mark belongs to another stream.
        """
        self._need_open()
        if mark.request is not self._request:
            raise InputError(
                "found a mark of another stream; expected a mark of this stream or of its forks"
            )
        self._answer.restore(mark.answer)
        self.verdict, self._read = mark.verdict, mark.read
        return self.verdict

    def fork(self) -> "Stream":
        """An independent copy, for several candidate answers to one prompt."""
        self._need_open()
        other = copy(self)
        other._answer = self._answer.fork()
        other._views = [view.fork() for view in self._views]
        return other

    def close(self) -> None:
        """Free the caches and count the verdict in the flag-rate monitor; may be called twice."""
        if self._open:
            self._callbacks.count(self.verdict)
        self._drop()

    def __enter__(self) -> Self:
        self._need_open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _need_open(self) -> None:
        if not self._open:
            raise InputError("the stream is closed; open another one with guard.stream(...)")
        if self._process != os.getpid():
            raise InputError(
                f"the stream was opened in process {self._process}, from which process "
                f"{os.getpid()} was forked; open another one here with guard.stream(...)"
            )

    def _drop(self) -> None:
        self._open = False
        self._views = []

    def _update(self, *, now: bool) -> Verdict:
        try:
            self.verdict = self._checked(now=now)
        except BaseException:  # some views may have advanced and others not
            self._drop()
            raise
        return self.verdict

    def _checked(self, *, now: bool) -> Verdict:
        """The verdict on the current text; with ``now`` no token may stay unread."""
        start = perf_counter()
        for view in self._views:
            view.tokenize(self._answer)
        if self._views:
            long = any(view.tokens > view.token_budget for view in self._views)
            self.rescoring = _LONG if long else None
        verdict = self._rescored(now=now) if self.rescoring else self._continued(start)
        return replace(verdict, unread_tokens=self._unread())

    def _continued(self, start: float) -> Verdict:
        """Read the new tokens only."""
        tokenized = perf_counter()
        for view in self._views:
            view.advance()
        read = perf_counter()
        found = [pair for view in self._views for pair in view.readings().items()]
        readings = {
            name: worst([reading for of, reading in found if of == name])
            for name in self._factory.detectors
        }
        done = perf_counter()
        self._read = self._length
        timings = {"tokenize": tokenized - start, "graph": read - tokenized, "score": done - read,
                   "total": done - start}  # fmt: skip
        return self._callbacks.assemble(
            readings,
            {stage: seconds * 1e3 for stage, seconds in timings.items()},
            tokens=max(view.tokens for view in self._views),
        )

    def _rescored(self, *, now: bool) -> Verdict:
        """Check the whole text if enough tokens are new; else keep the verdict."""
        first = not hasattr(self, "verdict")
        if not first and self._unread() < (1 if now else self._stride):
            return self.verdict
        verdict = self._callbacks.check(self._request.with_answer(self._answer.text))
        self._read = self._length
        return verdict

    @property
    def _length(self) -> int:
        """Length of the answer: in ids if ids are pushed, else in characters."""
        return len(self._answer.text if self._answer.ids is None else self._answer.ids)

    def _unread(self) -> int:
        """Tokens that the verdict does not cover; an incomplete character counts as one."""
        incomplete = 1 if self._answer.pending_bytes else 0
        if self._answer.ids is not None:
            return len(self._answer.ids) - self._read + incomplete
        return len(self._factory.reader.literal(self._answer.text[self._read :])) + incomplete
