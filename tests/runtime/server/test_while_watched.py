"""Work that is watched: who ends it decides what is raised, at every await."""

import asyncio
from typing import Never

import pytest

from layerguard.runtime.server.http import while_watched


class _GoneError(Exception):
    """The client."""


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def _ended(steps: int, *, leaves: int | None, stops: int | None, slow: bool) -> tuple[str, int]:
    """What work of some awaits ends with, and the cancellations that its task has left.

    Args:
        steps: awaits of the work.
        leaves: turn of the loop in which the client leaves.
        stops: turn of the loop in which the server cancels the task.
        slow: whether the work awaits on its way out.
    """

    async def work() -> str:
        try:
            await _turns(steps)
        finally:
            await _turns(int(slow))
        return "done"

    async def watch() -> Never:
        await _turns(1_000 if leaves is None else leaves)
        raise _GoneError

    async def request() -> tuple[str, int]:
        task = asyncio.current_task()
        assert task is not None
        try:
            return await while_watched(work(), watch), task.cancelling()
        except _GoneError:
            return "gone", task.cancelling()

    async def whole() -> tuple[str, int]:
        task = asyncio.ensure_future(request())
        await _turns(stops or 0)
        if stops is not None:
            task.cancel()
        try:
            return await task
        except asyncio.CancelledError:
            return "stopped", 0
        finally:
            await asyncio.sleep(0)
            others = asyncio.all_tasks() - {asyncio.current_task()}
            assert not others, "the watch goes on"

    return asyncio.run(whole())


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("turn", range(12))
def test_the_end_of_one_is_told_from_the_end_of_the_other(turn: int, *, slow: bool) -> None:
    """Either the work is done, or the one that came is told; no cancellation is left over."""
    assert _ended(5, leaves=None, stops=None, slow=slow) == ("done", 0)
    assert _ended(5, leaves=turn, stops=None, slow=slow) in (("done", 0), ("gone", 0))
    assert _ended(5, leaves=None, stops=turn, slow=slow)[0] in ("done", "stopped")


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("leaves", range(10))
@pytest.mark.parametrize("stops", range(10))
def test_a_server_that_stops_is_never_lost(leaves: int, stops: int, *, slow: bool) -> None:
    """If both come, the task ends as one of them says, or was done before."""
    ended, left = _ended(6, leaves=leaves, stops=stops, slow=slow)
    assert ended in ("done", "gone", "stopped")
    if ended == "done":
        assert left == 0
