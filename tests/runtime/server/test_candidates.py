"""A candidate is asked what the served bundle was asked, and changes no answer."""

import asyncio
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from layerguard.runtime import Guard
from layerguard.runtime.server.config import Config, GuardConfig, SchedulerConfig
from layerguard.runtime.server.service import Service
from layerguard.runtime.text.request import Request
from tests.runtime.server.guards import HeldGuard

_PAIR = {"main": "strict"}


def _config(sound: Path, strict: Path, **more: Any) -> Config:
    bundles = {"main": str(sound), "strict": str(strict)}
    return Config(bundles, guard=GuardConfig(threads=1, shadow=_PAIR), **more)


def _ask(service: Service, **arguments: Any) -> list[Any]:
    """The answers to two texts, once the candidate has answered too."""

    async def whole() -> list[Any]:
        await service.reload()
        texts = [Request("the garden"), Request("river boats")]
        answers = await service.check(texts, contract="native", **arguments)
        await asyncio.gather(*service._candidates._tasks)
        await service.drain()
        return answers

    return asyncio.run(whole())


def _compared(service: Service) -> dict[str, float]:
    labels = {"bundle": "main", "candidate": "strict"}
    found = {
        outcome: service.metrics.registry.get_sample_value(
            "layerguard_compared_total", {**labels, "outcome": outcome}
        )
        for outcome in ("agrees", "disagrees", "failed", "skipped")
    }
    return {outcome: count for outcome, count in found.items() if count}


def test_disagreements_are_counted_and_logged(
    sound: Path, strict: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The candidate flags what the served bundle lets pass, and that still passes."""
    service = Service(_config(sound, strict))
    with caplog.at_level(logging.INFO, "layerguard.server"):
        answers = _ask(service)
    assert [(one.bundle, one.decision) for one in answers] == [("main", "pass")] * 2
    assert _compared(service) == {"disagrees": 2}
    assert caplog.text.count("main gives pass, and candidate strict block") == 2
    assert "garden" not in caplog.text
    assert len(service.metrics.recent.decisions()) == 2


def test_answers_that_are_the_same_agree(sound: Path) -> None:
    """Nothing is logged."""
    service = Service(_config(sound, sound))
    _ask(service)
    assert _compared(service) == {"agrees": 2}


def test_other_bundles_have_no_candidate(sound: Path, strict: Path) -> None:
    """Only the bundle of the settings is followed."""
    service = Service(_config(sound, strict))
    _ask(service, bundle="strict")
    assert _compared(service) == {}


def test_a_candidate_that_fails_changes_no_answer(sound: Path, strict: Path) -> None:
    """It is counted."""

    def load(folder: str) -> Guard:
        guard = Guard.load(folder, threads=1)

        def fail(*_: Any, **__: Any) -> Any:
            raise RuntimeError

        if folder == str(strict):
            guard.check_requests = fail  # type: ignore[method-assign]
        return guard

    service = Service(_config(sound, strict), load)
    assert [one.decision for one in _ask(service)] == ["pass"] * 2
    assert _compared(service) == {"failed": 2}


def test_a_busy_server_skips_its_candidates(sound: Path, strict: Path) -> None:
    """While more than half of the queue is taken; the served bundle goes first."""
    scheduler = SchedulerConfig(workers=1, queue_requests=4)
    service = Service(_config(sound, strict, scheduler=scheduler))
    held = HeldGuard()

    async def whole() -> None:
        await service.reload()
        (answer,) = await service.check([Request("a")], contract="native")
        await asyncio.gather(*service._candidates._tasks)
        held.hold()
        asked = [service.run(lambda: held.check_requests([Request("a")])) for _ in range(4)]
        waiting = [asyncio.create_task(one) for one in asked]
        await asyncio.to_thread(held.began.acquire, timeout=30)
        assert service._scheduler.queued_jobs == 3
        service._candidates.follow(
            [answer], [Request("a")], None, "native", service.guards, scheduler
        )
        assert not service._candidates._tasks
        held.release()
        await asyncio.gather(*waiting)
        await service.drain()

    asyncio.run(whole())
    assert _compared(service) == {"disagrees": 1, "skipped": 1}


def test_what_is_not_checked_is_not_compared(sound: Path, strict: Path) -> None:
    """A route whose mode is off costs nothing."""
    config = _config(sound, strict)
    service = Service(replace(config, guard=replace(config.guard, mode="off")))
    _ask(service)
    assert _compared(service) == {}
