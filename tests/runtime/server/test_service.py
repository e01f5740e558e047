"""The service: modes, failures, growing answers, reload and drain."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from layerguard.runtime import BundleError, Guard, InputError
from layerguard.runtime.server.config import Config, ContractConfig, SchedulerConfig, StreamConfig
from layerguard.runtime.server.errors import OverloadError
from layerguard.runtime.server.service import Service
from layerguard.runtime.text.request import Request, request
from tests import tiny_decoder
from tests.tiny import make_bundle, make_params

Make = Callable[..., Service]


def _run(service: Service, test: Callable[[], Awaitable[Any]]) -> Any:
    async def whole() -> Any:
        await service.reload()
        try:
            return await test()
        finally:
            await service.drain()

    return asyncio.run(whole())


def _strict(service: Service) -> Any:
    async def test() -> Any:
        return (await service.check([Request("a")], contract="native", bundle="strict"))[0]

    return _run(service, test)


def test_the_mode_of_a_route_decides_what_is_done(make_service: Make) -> None:
    """Enforce blocks; shadow reports only; off does not check."""
    enforced = _strict(make_service())
    shadow = _strict(make_service({"route_modes": {"native": "shadow"}}))
    off = _strict(make_service({"mode": "off"}))
    other = _strict(make_service({"route_modes": {"other": "off"}}))
    assert (enforced.decision, enforced.blocked) == ("block", True)
    assert (shadow.decision, shadow.blocked, shadow.flagged) == ("flag", False, True)
    assert (off.decision, off.blocked, off.verdict) == ("unchecked", False, None)
    assert other.decision == "block"


def test_scores_say_what_is_blocked(make_service: Make) -> None:
    """At least 0.5 for what blocks, and less in shadow mode."""
    enforced, shadow = _strict(make_service()), _strict(make_service({"mode": "shadow"}))
    assert enforced.scores[""] >= 0.5
    for name, reading in enforced.verdict.readings.items():
        assert (enforced.scores[name] >= 0.5) == reading.flagged
    assert all(score < 0.5 for score in shadow.scores.values())


def test_the_mode_of_a_detector_decides_whether_it_counts(make_service: Make) -> None:
    """In shadow it is read and does not decide; off it is not even reported."""
    flagging = {n for n, r in _strict(make_service()).verdict.readings.items() if r.flagged}
    shadow = _strict(make_service({"detector_modes": dict.fromkeys(flagging, "shadow")}))
    off = _strict(make_service({"detector_modes": dict.fromkeys(flagging, "off")}))
    assert flagging
    assert (shadow.decision, off.decision) == ("pass", "pass")
    assert flagging <= set(shadow.verdict.shadow)
    assert flagging.isdisjoint(off.verdict.readings)
    assert "by the bundle's own" in shadow.reason


def test_settings_of_a_detector_that_no_bundle_has_are_refused(make_service: Make) -> None:
    """A misspelt one would decide, or would not; the bundles from before still serve."""
    modes = {"guard": {"detector_modes": {"lfc": "off", "lcf": "off"}}}
    categories = {"contracts": ContractConfig({"hate": "sirene", "illicit": "guard"})}
    for settings, where in (
        (modes, "guard.detector_modes: found 'lfc'"),
        (categories, "contracts.categories.hate: found 'sirene'"),
    ):
        service = make_service(**settings)
        with pytest.raises(InputError, match=where) as caught:
            asyncio.run(service.reload())
        assert str(caught.value).count("found") == 1
        assert not service.ready


def test_unread_parts_block_in_every_mode_of_the_detectors(make_service: Make) -> None:
    """No detector could read the image, so none of them can clear it."""
    image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    content = [{"type": "text", "text": "the garden"}, image]
    asked = request(messages=[{"role": "user", "content": content}])
    service = make_service()
    names = _strict(service).verdict.readings
    service = make_service({"detector_modes": dict.fromkeys(names, "shadow")})

    async def test() -> Any:
        return (await service.check([asked], contract="native"))[0]

    answer = _run(service, test)
    assert answer.blocked
    assert answer.verdict.unread == ("messages[0].content[1]",)


def test_a_failure_blocks_unless_the_operator_lets_it_pass(sound: Path) -> None:
    """Fail closed by default: the error reaches the contract. Shadow mode stops nothing."""

    class BrokenError(RuntimeError):
        pass

    def load(folder: str) -> Guard:
        guard = Guard.load(folder, threads=1)

        def fail(*_: Any, **__: Any) -> Any:
            raise BrokenError

        guard.check_requests = fail  # type: ignore[method-assign]
        return guard

    config = Config({"main": str(sound)})
    allowing = replace(config, guard=replace(config.guard, on_error="allow"))
    watching = replace(config, guard=replace(config.guard, mode="shadow"))

    def ask(service: Service) -> Any:
        return _run(service, lambda: service.check([Request("a")] * 2, contract="native"))

    with pytest.raises(BrokenError):
        ask(Service(config, load))
    for passing in (allowing, watching):
        answers = ask(Service(passing, load))
        assert [answer.decision for answer in answers] == ["unchecked", "unchecked"]
        assert all("not checked" in answer.reason for answer in answers)


def test_a_wrong_request_is_no_failure_that_may_pass(make_service: Make) -> None:
    """``on_error`` is for the guard's failures, not for the client's."""
    service = make_service({"on_error": "allow"})
    with pytest.raises(InputError):
        _run(service, lambda: service.check([Request("a")], contract="native", bundle="none"))


def test_nothing_is_answered_before_the_bundles_are_loaded(make_service: Make) -> None:
    """Nor after the server began to end."""
    service = make_service()
    with pytest.raises(OverloadError, match="starting"):
        asyncio.run(service.check([Request("a")], contract="native"))
    _run(service, lambda: service.check([Request("a")], contract="native"))
    with pytest.raises(OverloadError, match="shutting down"):
        asyncio.run(service.check([Request("a")], contract="native"))


def test_a_growing_answer_is_read_once(tmp_path: Path) -> None:
    """Each callback reads the new words only, and gives the verdict of the whole text."""
    folder = tiny_decoder.make_bundle(tmp_path / "decoder")
    service = Service(Config({"main": str(folder)}))
    words = ["the garden", " was quiet", " before rain", " came over"]
    prompt = Request("the river")

    async def test() -> list[Any]:
        await service.check([prompt], contract="native", key="call")
        return [
            await service.push("call", "".join(words[: n + 1]), contract="native")
            for n in range(len(words))
        ]

    answers = _run(service, test)
    guard = Guard.load(folder, threads=1)
    whole = guard.check(prompt=prompt.prompt, response="".join(words))
    for name, reading in whole.readings.items():
        found = answers[-1].verdict.readings[name].score
        assert found == pytest.approx(reading.score, abs=1e-5 * (1 + abs(reading.score)))
    assert answers[-1].verdict.unread_tokens == 0


def test_a_repeated_callback_gives_the_same_answer_and_another_text_starts_anew(
    make_service: Make, guard: Guard
) -> None:
    """Clients repeat calls, and may send a text that does not continue the last one."""
    service = make_service()

    async def test() -> list[Any]:
        texts = ["the garden was", "the garden was", "rain came", "rain"]
        return [await service.push("k", text, contract="native") for text in texts]

    first, again, other, shorter = _run(service, test)
    assert again.verdict == first.verdict
    for found, text in ((other, "rain came"), (shorter, "rain")):
        expected = guard.check(prompt="", response=text)
        assert found.verdict.readings.keys() == expected.readings.keys()
        for name, reading in expected.readings.items():
            assert found.verdict.readings[name].score == pytest.approx(reading.score, rel=1e-5)


def test_open_answers_are_bounded(make_service: Make) -> None:
    """In number, and in time; the least recently used one is closed."""
    service = make_service(streams=StreamConfig(streams=2, stream_idle_s=0.2))

    async def test() -> list[int]:
        for key in "abc":
            await service.push(key, "the", contract="native")
        counts = [len(service._answers)]
        tending = asyncio.create_task(service.tend(0.05))
        await asyncio.sleep(0.6)
        tending.cancel()
        return [*counts, len(service._answers), service._answers.nbytes]

    assert _run(service, test) == [2, 0, 0]


def test_a_reload_exchanges_changed_bundles_only(tmp_path: Path) -> None:
    """An unchanged bundle keeps its guard and its counts; a changed one serves under its new id."""
    same, changed = make_bundle(tmp_path / "same"), make_bundle(tmp_path / "changed")
    service = Service(Config({"same": str(same), "changed": str(changed)}))

    async def test() -> tuple[Any, Any, Any]:
        before = dict(service.guards)
        shutil.rmtree(changed)
        make_bundle(changed, make_params(1))
        ids = await service.reload()
        answer = (await service.check([Request("a")], contract="native", bundle="changed"))[0]
        return before, ids, answer

    before, ids, answer = _run(service, test)
    assert service.guards["same"] is before["same"]
    assert ids["changed"] != before["changed"].bundle.id
    assert answer.verdict.bundle_id == ids["changed"]


def test_a_bundle_that_cannot_be_loaded_leaves_the_others_serving(tmp_path: Path) -> None:
    """The error is raised, and the earlier guards still answer."""
    folder = make_bundle(tmp_path / "bundle")
    service = Service(Config({"main": str(folder)}))

    async def test() -> Any:
        (folder / "manifest.json").write_text("{}", encoding="utf-8")
        with pytest.raises(BundleError):
            await service.reload()
        return (await service.check([Request("a")], contract="native"))[0]

    assert _run(service, test).decision == "pass"


def test_batching_does_not_change_a_verdict(make_service: Make, guard: Guard) -> None:
    """Texts that share a run have the scores that they have alone, within 1e-5."""
    service = make_service(scheduler=SchedulerConfig(workers=1))
    texts = ["the garden", "was quiet before rain came over low hills", "a", "river boats"] * 8

    async def test() -> list[Any]:
        calls = [service.check([Request(text)], contract="native") for text in texts]
        return [answers[0] for answers in await asyncio.gather(*calls)]

    for text, answer in zip(texts, _run(service, test), strict=True):
        alone = guard.check(text)
        assert answer.verdict.flagged == alone.flagged
        assert answer.verdict.tokens == alone.tokens
        for name, reading in alone.readings.items():
            found = answer.verdict.readings[name].score
            assert found == pytest.approx(reading.score, abs=1e-5 * (1 + abs(reading.score)))
    rows = service.metrics.registry.get_sample_value("layerguard_batch_rows_count")
    assert rows is not None
    assert rows < len(texts), "no run had two texts"


@pytest.mark.parametrize("policy", ["flag", "allow"])
def test_the_operator_decides_about_unread_parts(make_service: Make, policy: str) -> None:
    """The setting reaches the guard."""
    image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    asked = request(messages=[{"role": "user", "content": [image]}])
    service = make_service({"on_unread": policy})

    async def test() -> Any:
        return (await service.check([asked], contract="native"))[0]

    assert _run(service, test).blocked == (policy == "flag")


def test_the_operator_limits_the_time_of_loading(
    make_service: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``load_s`` is the timeout of ``Guard.load``; without it nothing is tried first."""
    limits = []
    monkeypatch.setattr(
        "layerguard.runtime.guard.load_in_time", lambda *given: limits.append(given[2])
    )

    async def nothing() -> None:
        pass

    _run(make_service({"load_s": 0.0}), nothing)
    assert not limits
    _run(make_service({"load_s": 60.0}), nothing)
    assert limits == [60.0, 60.0]
