"""A stream: the verdict on a request whose answer is still being written."""

import os
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, replace
from time import perf_counter
from types import TracebackType
from typing import Protocol, Self

from layerguard.runtime.errors import InputError
from layerguard.runtime.streaming.answer import Answer, AnswerState, Chunk
from layerguard.runtime.streaming.asked import Asked
from layerguard.runtime.streaming.opening import Opener, Views
from layerguard.runtime.streaming.views import ConversationView
from layerguard.runtime.text.request import Request
from layerguard.runtime.types import Array, Reading, Verdict

DEFAULT_STRIDE = 32
"""Tokens between two checks of a stream that has to read its text anew each time: a stream of n
tokens then costs n / 32 checks, and what is not read yet is two sentences at most."""

_LONG = "the text is longer than the bundle's window"


class Assemble(Protocol):
    """One verdict of all readings, as the guard makes it."""

    def __call__(
        self, readings: Mapping[str, Reading], timings: Mapping[str, float], *, tokens: int
    ) -> Verdict:
        """The verdict; ``tokens`` of the longest view."""


@dataclass(frozen=True, slots=True)
class Judge:
    """What a stream asks of its guard.

    Attributes:
        assemble: readings to a verdict.
        check: the verdict on a whole request.
        count: takes note of the verdict on a text that has come to its end.
    """

    assemble: Assemble
    check: Callable[[Request], Verdict]
    count: Callable[[Verdict], None]


@dataclass(frozen=True, slots=True, eq=False)
class Mark:
    """A moment of a stream, made by ``Stream.mark``, for ``Stream.rollback``."""

    asked: Asked
    answer: AnswerState
    verdict: Verdict
    read: int


class Stream:
    """A request whose answer grows by what is pushed; made by ``Guard.stream``.

    After each push the verdict is the one that ``Guard.check`` gives of the request with the answer
    so far: scores within 1e-5 (1 + |score|) in float32. Each token is read once.
    Where the text cannot be read token by token (``rescoring`` says why), it is checked as a whole
    every ``stride`` tokens, and ``verdict.unread_tokens`` says how many the verdict has not seen.

    A stream belongs to one thread at a time; different streams are independent.

    Attributes:
        verdict: the latest one; it stays when the stream is closed.
        rescoring: why the text is read anew each time; None where it is read token by token.
    """

    def __init__(
        self,
        opener: Opener,
        request: Request,
        judge: Judge,
        stride: int = DEFAULT_STRIDE,
        *,
        want_logits: bool = False,
        steering: Array | None = None,
    ) -> None:
        """Read the prompt and what the request has of the answer.

        Args:
            opener: what the guard's streams share.
            request: a prompt with or without the beginning of its response, or a chat.
            judge: the guard.
            stride: at most so many tokens are unread where the text is read anew each time.
            want_logits: whether the answer is to be generated; see ``conversation``.
            steering: what the prompt's states lose; see ``Decoder.advance``.

        Raises:
            InputError: the stride is not at least 1, or the chat template refuses the messages.
        """
        if not isinstance(stride, int) or stride < 1:
            raise InputError(f"stride {stride!r}; expected a whole number of tokens, at least 1")
        self._opener, self._judge, self._stride = opener, judge, stride
        self._asked = Asked.of(request)
        self._answer = Answer(self._asked.begun, opener.reader.tokenizer, opener.vocabulary)
        self._read = 0
        self._open = True
        self._process = os.getpid()
        self.rescoring = opener.obstacle
        views: Views | None = []
        if not self.rescoring:
            views = opener.views(self._asked, want_logits=want_logits, steering=steering)
        if views is None:
            self.rescoring = _LONG
        self._views: Views = views or []
        self.verdict = self._judged(now=True)

    @property
    def nbytes(self) -> int:
        """Memory of the caches in bytes; at most a window's, for each view that is read."""
        return sum(view.nbytes for view in self._views)

    @property
    def text(self) -> str:
        """The answer so far; an incomplete character at its end may be spelt U+FFFD."""
        return self._answer.text

    @property
    def conversation(self) -> ConversationView | None:
        """The conversation as the decode graph reads it; None where none is read."""
        found = [view for view in self._views if isinstance(view, ConversationView)]
        return found[0] if found else None

    def reread(self, tokens: int) -> Verdict:
        """Read the last so many tokens of the conversation anew, as its steering is by now."""
        self._need_open()
        if self.conversation:
            self.conversation.forget(tokens)
        return self._judge_anew(now=True)

    def push(self, chunk: Chunk) -> Verdict:
        """Add what follows of the answer.

        Args:
            chunk: text; or its UTF-8 bytes, which may end within a character; or token ids of the
                bundle's own tokenizer, as the served model emits them. One stream takes either text
                and bytes, or ids.

        Returns:
            the verdict on all that was pushed so far. ``unread_tokens`` counts an incomplete
            character as one.

        Raises:
            InputError: the chunk is none of these, or the stream is closed; it is as it was.
            BundleError: the graph fails; the stream is closed.
        """
        self._need_open()
        self._answer.push(chunk)
        return self._judge_anew(now=False)

    def finish(self) -> Verdict:
        """The answer is complete: reads what is unread; bytes that still wait become U+FFFD."""
        self._need_open()
        self._answer.finish()
        return self._judge_anew(now=True)

    def mark(self) -> Mark:
        """This moment, to go back to."""
        self._need_open()
        return Mark(self._asked, self._answer.state(), self.verdict, self._read)

    def rollback(self, mark: Mark) -> Verdict:
        """Go back, or on again, to a moment of this stream or of one it was forked from.

        Returns:
            the verdict of that moment.

        Raises:
            InputError: the mark is of a stream of another request.
        """
        self._need_open()
        if mark.asked is not self._asked:
            raise InputError("found a mark of another stream; expected one of this or of its forks")
        self._answer.restore(mark.answer)
        self.verdict, self._read = mark.verdict, mark.read
        return self.verdict

    def fork(self) -> "Stream":
        """The same stream, to be continued apart: one prompt, several candidate answers."""
        self._need_open()
        other = copy(self)
        other._answer = self._answer.fork()
        other._views = [view.fork() for view in self._views]
        return other

    def close(self) -> None:
        """Free the caches; the guard's monitor counts the verdict. Closing twice does no harm."""
        if self._open:
            self._judge.count(self.verdict)
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

    def _judge_anew(self, *, now: bool) -> Verdict:
        try:
            self.verdict = self._judged(now=now)
        except BaseException:  # half of the views may have moved on
            self._drop()
            raise
        return self.verdict

    def _judged(self, *, now: bool) -> Verdict:
        """The verdict on what is there; ``now``: nothing may stay unread."""
        start = perf_counter()
        for view in self._views:
            view.lay_out(self._answer)
        if self._views:
            long = any(view.tokens > view.room for view in self._views)
            self.rescoring = _LONG if long else None
        verdict = self._rescored(now=now) if self.rescoring else self._continued(start)
        return replace(verdict, unread_tokens=self._unread())

    def _continued(self, start: float) -> Verdict:
        """Reads what is new."""
        tokenized = perf_counter()
        for view in self._views:
            view.advance()
        read = perf_counter()
        found = {name: r for view in self._views for name, r in view.readings().items()}
        readings = {name: found[name] for name in self._opener.detectors}
        done = perf_counter()
        self._read = self._length
        timings = {"tokenize": tokenized - start, "graph": read - tokenized, "score": done - read,
                   "total": done - start}  # fmt: skip
        return self._judge.assemble(
            readings,
            {stage: seconds * 1e3 for stage, seconds in timings.items()},
            tokens=max(view.tokens for view in self._views),
        )

    def _rescored(self, *, now: bool) -> Verdict:
        """Reads everything where enough is new; else the verdict stays."""
        first = not hasattr(self, "verdict")
        if not first and self._unread() < (1 if now else self._stride):
            return self.verdict
        verdict = self._judge.check(self._asked.with_answer(self._answer.text))
        self._read = self._length
        return verdict

    @property
    def _length(self) -> int:
        """Of the answer: ids where ids are pushed, else characters."""
        return len(self._answer.text if self._answer.ids is None else self._answer.ids)

    def _unread(self) -> int:
        """Tokens that no verdict has seen; a character that is not complete counts as one."""
        waiting = 1 if self._answer.waiting else 0
        if self._answer.ids is not None:
            return len(self._answer.ids) - self._read + waiting
        return len(self._opener.reader.literal(self._answer.text[self._read :])) + waiting
