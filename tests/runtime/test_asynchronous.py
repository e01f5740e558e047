"""The guard under asyncio: the loop stays free, and a cancelled call breaks nothing."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from layerguard.runtime import Guard, InputError, Verdict
from layerguard.runtime.streaming.stream import Stream

_SECONDS = 60


class Gate:
    """Holds the threads that reach it until it is opened."""

    def __init__(self) -> None:
        self._reached, self._opened = threading.Event(), threading.Event()
        self.open = self._opened.set

    def wait(self) -> None:
        """Wait in a thread until the loop opens the gate."""
        self._reached.set()
        assert self._opened.wait(_SECONDS), "the event loop is blocked"

    async def reached(self) -> None:
        """Wait in the loop until a thread is at the gate."""
        assert await asyncio.to_thread(self._reached.wait, _SECONDS)


@contextmanager
def held(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """Within the block every check waits at the gate."""
    gate, check = Gate(), guard.check_requests

    def waiting(*args: Any, **kwargs: Any) -> list[Verdict]:
        gate.wait()
        return check(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(guard, "check_requests", waiting)
        yield gate


def timeless(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts without their timings."""
    return [replace(verdict, timings_ms={}) for verdict in verdicts]


def test_the_loop_runs_while_a_text_is_checked(
    sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the check waits for happens in the loop; the verdict is that of ``check``."""
    guard = Guard.load(sound, threads=1)

    async def both() -> Verdict:
        with held(guard, monkeypatch) as gate:
            checking = asyncio.create_task(guard.acheck(prompt="the garden", response="was quiet"))
            await gate.reached()
            gate.open()
            return await checking

    expected = guard.check(prompt="the garden", response="was quiet")
    assert timeless([asyncio.run(both())]) == timeless([expected])


def test_a_cancelled_check_leaves_the_guard_usable(
    sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller goes on at once; the text is counted when its thread ends."""
    guard = Guard.load(sound, threads=1)

    async def cancelled() -> list[Verdict]:
        with held(guard, monkeypatch) as gate:
            checking = asyncio.create_task(guard.acheck("the garden"))
            await gate.reached()
            checking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await checking
            assert guard.monitor.n == 0
            gate.open()
            return await guard.acheck_batch(["low hills", "the garden"])

    found = asyncio.run(cancelled())
    assert guard.monitor.n == 3
    assert timeless(found) == timeless(guard.check_batch(["low hills", "the garden"]))


def test_many_checks_run_at_once(guard: Guard) -> None:
    """Each gets its own verdict."""
    texts = ["the garden", "low hills", "small boats lay still", "near the river"] * 4

    async def gathered() -> list[Verdict]:
        return await asyncio.gather(*map(guard.acheck, texts))

    found = asyncio.run(gathered())
    assert [v.tokens for v in found] == [guard.check(text).tokens for text in texts]


def test_an_error_reaches_the_caller(guard: Guard) -> None:
    """A wrong argument is an ``InputError`` of the awaited call."""
    with pytest.raises(InputError):
        asyncio.run(guard.acheck())


def test_a_stream_equals_the_stream_of_a_thread(guard: Guard) -> None:
    """Push by push; the verdict stays after the end."""
    chunks = ["was", " quiet", " near the river"]

    async def streamed() -> list[Verdict]:
        async with guard.astream(prompt="the garden") as stream:
            verdicts = [stream.verdict, *[await stream.push(chunk) for chunk in chunks]]
            verdicts.append(await stream.finish())
        assert stream.verdict == verdicts[-1]
        with pytest.raises(InputError, match="closed"):
            await stream.push("more")
        return verdicts

    with guard.stream(prompt="the garden") as stream:
        expected = [stream.verdict, *[stream.push(chunk) for chunk in chunks], stream.finish()]
    assert timeless(asyncio.run(streamed())) == timeless(expected)


def test_a_stream_is_opened_by_async_with(guard: Guard) -> None:
    """A push before it says so."""
    with pytest.raises(InputError, match="expected `async with"):
        asyncio.run(guard.astream(prompt="the garden").push("was"))


def test_pushes_take_turns_after_one_was_cancelled(
    guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A push that was cancelled ends in its thread before the next one begins."""
    gate, push, running = Gate(), Stream.push, []

    def waiting(self: Stream, chunk: str) -> Verdict:
        running.append(chunk)
        assert len(running) == 1
        gate.wait()
        verdict = push(self, chunk)
        running.remove(chunk)
        return verdict

    async def streamed() -> str:
        async with guard.astream(prompt="the garden") as stream:
            first = asyncio.create_task(stream.push("was"))
            await gate.reached()
            first.cancel()
            second = asyncio.create_task(stream.push(" quiet"))
            await asyncio.sleep(0.01)
            gate.open()
            await second
            return stream.stream.text

    monkeypatch.setattr(Stream, "push", waiting)
    assert asyncio.run(streamed()) == "was quiet"
