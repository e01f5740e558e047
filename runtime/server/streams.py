"""Answers that are still being written, by the caller's key: the id of the call in a gateway.

A gateway repeats the whole text so far in every callback. The store keeps an open ``Stream`` for
each key, so that a callback costs only its new text. The store is bounded in number and in bytes;
the answer that was not asked about for longest is closed first. A later callback for it is still
right, and reads the whole text once more.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from layerguard.runtime.guard import Guard
from layerguard.runtime.server.config import StreamConfig
from layerguard.runtime.server.jobs import attempt, estimated_bytes
from layerguard.runtime.streaming.stream import Stream
from layerguard.runtime.text.request import Request
from layerguard.runtime.types import Verdict


class GrowingAnswer:
    """One answer: a group of jobs of which one runs at a time.

    Attributes:
        guard: the guard that reads it.
        request: what the answer is for, without the answer.
        used: when it was last asked about, in seconds of the caller's clock.
        counted: bytes of it in the total of its store.
        closed: whether its store has closed it.
    """

    most_rows = 1
    serial = True

    def __init__(self, guard: Guard, request: Request, domain: str | None, used: float) -> None:
        """Open nothing yet: the first text does."""
        self.guard, self.request, self.domain, self.used = guard, request, domain, used
        self.counted, self.closed = 0, False
        self._own_bytes = estimated_bytes(request)
        self._stream: Stream | None = None
        self._text = ""

    @property
    def nbytes(self) -> int:
        """Bytes of its texts and caches, roughly."""
        return self._own_bytes + len(self._text) + (self._stream.nbytes if self._stream else 0)

    def new_bytes(self, text: str) -> int:
        """Bytes that must be read for the answer ``text``, roughly."""
        if self._stream is not None and text.startswith(self._text):
            return len(text) - len(self._text)
        return self._own_bytes + len(text)

    def run(self, arguments: Sequence[str]) -> list[Any]:
        """The verdict on each text, or the exception that it raised."""
        return [attempt(partial(self.read, text)) for text in arguments]

    def read(self, text: str) -> Verdict:
        """The verdict on the answer ``text``; only what is new is read.

        A text that does not continue the last one is read from its beginning.
        """
        try:
            if self._stream is None or not text.startswith(self._text):
                self.close()
                self._stream = open_stream(self.guard, self.request, self.domain)
            if len(text) > len(self._text):
                self._stream.push(text[len(self._text) :])
                self._text = text
        except BaseException:
            self._stream, self._text = None, ""
            raise
        return self._stream.verdict

    def close(self) -> None:
        """Free the caches, and count the last verdict as traffic."""
        if self._stream is not None:
            self._stream.close()
        self._stream, self._text = None, ""


class AnswerStore:
    """The open answers, the least recently used first. Use it from one thread.

    Attributes:
        nbytes: bytes of all of them, as last counted.
    """

    def __init__(self, config: StreamConfig, is_busy: Callable[[GrowingAnswer], bool]) -> None:
        """Start empty; an answer that ``is_busy`` is not closed."""
        self._config, self._is_busy = config, is_busy
        self._answers: OrderedDict[str, GrowingAnswer] = OrderedDict()
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._answers)

    def get(
        self,
        key: str,
        now: float,
        guard: Guard,
        request: Request | None = None,
        domain: str | None = None,
    ) -> GrowingAnswer:
        """The answer of a key; a new one if there is none, or if it was for another request.

        Args:
            key: the caller's name of it.
            now: seconds of the caller's clock.
            guard: reads a new answer; an open one keeps its own.
            request: what the answer is for; None: as the key's last one, or an empty prompt.
            domain: of a new answer.
        """
        found = self._answers.get(key)
        if found is None or (request is not None and request != found.request):
            self.close(key)
            found = GrowingAnswer(guard, request or Request(""), domain, now)
            self._answers[key] = found
        found.used = now
        self._answers.move_to_end(key)
        self.count(found)
        self.trim(now, found)
        return found

    def count(self, answer: GrowingAnswer) -> None:
        """Bring the total up to date with an answer that was read."""
        if not answer.closed:
            self.nbytes += answer.nbytes - answer.counted
            answer.counted = answer.nbytes

    def trim(self, now: float, kept: GrowingAnswer | None = None) -> None:
        """Close answers that are quiet for too long, or too many, or too large; oldest first."""
        config = self._config
        for key, answer in list(self._answers.items()):
            quiet = now - answer.used > config.stream_idle_s
            if not (quiet or len(self) > config.streams or self.nbytes > config.stream_bytes):
                return
            if answer is not kept and not self._is_busy(answer):
                self.close(key)

    def close(self, key: str) -> None:
        """Close the answer of a key, if there is one; a busy one is dropped, not counted."""
        answer = self._answers.pop(key, None)
        if answer is None:
            return
        self.nbytes -= answer.counted
        answer.closed = True
        if not self._is_busy(answer):
            answer.close()

    def clear(self) -> None:
        """Close all answers."""
        for key in list(self._answers):
            self.close(key)


def open_stream(guard: Guard, request: Request, domain: str | None = None) -> Stream:
    """A stream for the answer to a request; its verdicts leave nothing unread."""
    if request.messages is None:
        return guard.stream(
            prompt=request.prompt, response=request.response, domain=domain, stride=1
        )
    return guard.stream(messages=request.messages, tools=request.tools, domain=domain, stride=1)
