"""The gate fails closed, and says what it did to operators alone."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from layerguard.integrations.gate import Gate, check_each
from layerguard.runtime import Guard, InputError, Verdict
from tests.integrations.bundles import Texts


def test_a_flagged_text_is_blocked(guard: Guard, said: Texts) -> None:
    """And a harmless one passes, each with its verdict."""
    flagged = Gate(guard).decide(lambda guard: guard.check(said.flagged))
    assert flagged.blocked
    assert flagged.verdict is not None
    passed = Gate(guard).decide(lambda guard: guard.check(said.harmless))
    assert not passed.blocked
    assert passed.error is None


def test_a_guard_that_raises_blocks(
    guard: Guard, said: Texts, break_guard: Callable[[], None]
) -> None:
    """The decision has the error and no verdict."""
    break_guard()
    decision = Gate(guard).decide(lambda guard: guard.check(said.harmless))
    assert decision.blocked
    assert decision.verdict is None
    assert isinstance(decision.error, RuntimeError)
    assert "RuntimeError: the graph failed" in decision.reason


def test_a_request_that_cannot_be_read_blocks(guard: Guard) -> None:
    """No detector reads an image, so the verdict names it and flags the request."""
    image = [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]
    messages = [{"role": "user", "content": image}]
    decision = Gate(guard).decide(lambda guard: guard.check(messages=messages))
    assert decision.blocked
    assert decision.verdict is not None
    assert decision.verdict.unread == ("messages[0].content[0]",)


def test_a_path_is_loaded(said: Texts) -> None:
    """As a str, relative to the working directory."""
    assert Gate("guard/").decide(lambda guard: guard.check(said.flagged)).blocked


def test_a_check_under_asyncio_runs_in_a_thread(guard: Guard, said: Texts) -> None:
    """The event loop's own thread stays free."""
    threads = []

    def ask(guard: Guard) -> Verdict:
        threads.append(threading.current_thread())
        return guard.check(said.flagged)

    assert asyncio.run(Gate(guard).adecide(ask)).blocked
    assert threads[0] is not threading.main_thread()


def test_the_log_has_the_reason(
    guard: Guard, said: Texts, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a flagged text, and nothing of one that passes."""
    Gate(guard).decide(lambda guard: guard.check(said.harmless))
    assert caplog.text == ""
    decision = Gate(guard).decide(lambda guard: guard.check(said.flagged))
    assert decision.reason in caplog.text
    assert said.flagged not in caplog.text


def test_the_first_flagged_text_decides(guard: Guard, said: Texts) -> None:
    """Wherever it stands; without one, the last text does."""
    requests = [{"text": said.harmless}, {"text": said.flagged}, {"text": said.harmless}]
    assert check_each(guard, requests).flagged
    assert not check_each(guard, requests[:1]).flagged


def test_nothing_to_check_is_an_error(guard: Guard) -> None:
    """No text is no reason to pass."""
    with pytest.raises(InputError, match="at least one text"):
        check_each(guard, [])


def test_a_cancelled_check_is_not_a_decision(guard: Guard) -> None:
    """``CancelledError`` and ``KeyboardInterrupt`` go on to the caller."""

    def stop(_: Guard) -> Verdict:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Gate(guard).decide(cast(Any, stop))
