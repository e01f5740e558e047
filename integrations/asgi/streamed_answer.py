"""Server-sent events of an answer that is being written: none leaves before it was read."""

from collections.abc import Iterator, Mapping
from typing import Any

from layerguard.integrations.asgi.openai_form import Asked, choices_of, parsed
from layerguard.runtime import Guard, Verdict
from layerguard.runtime.text.growing_message import GrowingMessage, parts_of
from layerguard.runtime.text.server_events import EventReader, data_of


class StreamedAnswer:
    """The choices of one streamed answer. It holds events back until a verdict covers them.

    A decoder bundle reads each chunk at once. Other bundles check every 32 tokens, and text leaves
    at that pace. Tool calls leave at the end, when they are complete. Use it from one thread at a
    time.

    Attributes:
        verdict: the latest verdict.
    """

    def __init__(self, guard: Guard, asked: Asked, verdict: Verdict) -> None:
        self._guard, self._asked, self.verdict = guard, asked, verdict
        self._choices: dict[int, _Choice] = {}
        self._held: list[bytes] = []
        self._events = EventReader()

    def push(self, data: bytes, *, last: bool) -> Verdict:
        """Read a part of the body; the verdict is flagged if that of any choice is.

        Raises:
            InputError: an event is not a chunk of an answer.
            BundleError: the graph fails.
        """
        for verdict in self._verdicts(data, last=last):
            self.verdict = verdict
            if verdict.flagged:
                break
        if last or self.verdict.flagged:
            for choice in self._choices.values():
                choice.close()
        return self.verdict

    def _verdicts(self, data: bytes, *, last: bool) -> Iterator[Verdict]:
        """A verdict after each part of a choice, and at the end more on each choice."""
        for event in self._events.feed(data, last=last):
            self._held.append(event)
            for choice in _choices(event):
                index = choice.get("index", 0)
                if index not in self._choices:
                    self._choices[index] = _Choice(self._guard, self._asked, index)
                yield self._choices[index].push(parts_of(choice))
        for one in self._choices.values() if last else ():
            yield from one.finish()

    def release(self) -> bytes:
        """The events that verdicts cover, as they came; empty while there is unread text."""
        if not all(choice.covered for choice in self._choices.values()):
            return b""
        released, self._held = b"".join(self._held), []
        return released


class _Choice:
    """One answer: its text in a stream of the guard, its tool calls put together."""

    def __init__(self, guard: Guard, asked: Asked, index: int) -> None:
        self._guard, self._asked, self._index = guard, asked, index
        self._stream = guard.stream(**asked.prompt_of(index))
        self._message = GrowingMessage()
        self._finished = False

    @property
    def covered(self) -> bool:
        """Whether everything so far may leave."""
        read = self._stream.verdict.unread_tokens == 0 and not self._message.calls
        return read or self._finished

    def push(self, delta: Mapping[str, Any]) -> Verdict:
        text = self._message.add(delta)
        return self._stream.push(text) if text else self._stream.verdict

    def finish(self) -> Iterator[Verdict]:
        yield self._stream.finish()
        if self._message.calls:
            whole = self._asked.answered(self._index, self._message.message())
            yield self._guard.check(**whole)
        self._finished = True

    def close(self) -> None:
        self._stream.close()


def _choices(event: bytes) -> list[Mapping[str, Any]]:
    """The choices of an event; none of a comment or of the end."""
    data = data_of(event)
    if not data or data == b"[DONE]":
        return []
    chunk = parsed(data)
    return [] if "error" in chunk and "choices" not in chunk else choices_of(chunk)
