"""The guard for asyncio: its calls run in threads, and the event loop stays free.

They run in the event loop's own executor. ONNX Runtime and the kernels release Python's lock while
they compute. A call that is cancelled still ends in its thread: its verdict is dropped, its texts
count as traffic, and the guard can be used at once.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from layerguard.runtime.errors import InputError
from layerguard.runtime.streaming.answer import Chunk
from layerguard.runtime.streaming.stream import Stream
from layerguard.runtime.types import Verdict

Owner = TypeVar("Owner")
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class AsyncStream:
    """A ``Stream`` for asyncio; made by ``Guard.astream`` and opened by ``async with``.

    Calls run one after the other, each in a thread. If a push is cancelled, the chunk may have been
    read or not: leave the stream then, or go back to a mark with ``stream.rollback``.
    """

    def __init__(self, opening: Callable[[], Stream]) -> None:
        """``opening`` makes the stream, which reads the prompt."""
        self._opening = opening
        self._stream: Stream | None = None
        self._turn = threading.Lock()

    @property
    def stream(self) -> Stream:
        """The stream itself, for what takes no time: ``mark``, ``text``, ``verdict``.

        Raises:
            InputError: it was not opened by ``async with``.
        """
        if self._stream is None:
            raise InputError("the stream is not open; expected `async with guard.astream(...)`")
        return self._stream

    @property
    def verdict(self) -> Verdict:
        """The latest verdict; still available after the end."""
        return self.stream.verdict

    async def push(self, chunk: Chunk) -> Verdict:
        """``Stream.push`` in a thread."""
        return await self._run(self.stream.push, chunk)

    async def finish(self) -> Verdict:
        """``Stream.finish`` in a thread."""
        return await self._run(self.stream.finish)

    async def __aenter__(self) -> Self:
        self._stream = await self._run(self._opening)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._run(self.stream.close)

    async def _run(
        self,
        function: Callable[Arguments, Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        """Call the function in a thread, after a call that was cancelled and still runs."""

        def in_turn() -> Result:
            with self._turn:
                return function(*args, **kwargs)

        return await asyncio.to_thread(in_turn)


def in_thread(
    method: Callable[Concatenate[Owner, Arguments], Result],
) -> Callable[Concatenate[Owner, Arguments], Coroutine[Any, Any, Result]]:
    """The method as a coroutine function with the same arguments."""

    async def called(self: Owner, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        return await asyncio.to_thread(method, self, *args, **kwargs)

    return called


def opened_in_thread(
    method: Callable[Concatenate[Owner, Arguments], Stream],
) -> Callable[Concatenate[Owner, Arguments], AsyncStream]:
    """The method that opens a stream, for asyncio, with the same arguments."""

    def opened(self: Owner, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> AsyncStream:
        return AsyncStream(lambda: method(self, *args, **kwargs))

    return opened
