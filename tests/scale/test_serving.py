"""The server on Ray Serve, with two replicas on this machine."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from layerguard.runtime import Guard
from layerguard.runtime.errors import InputError
from layerguard.runtime.server.config import Config, ContractConfig, HttpConfig
from tests import tiny_decoder
from tests.integrations.bundles import TOY, flagging
from tests.scale import page
from tests.scale.cluster import free_port, start
from tests.scale.watched import VARIABLE, seen

pytest.importorskip("ray", reason="needs Ray: run `make ray`")
import ray
from ray import serve

from layerguard.scale.ray import application, build, serving
from tests.scale.watched_replica import WatchedReplica

_PATH = "/beta/litellm_basic_guardrail_api"
_WORDS = ["the garden", " was quiet", " before rain", " came over", " low hills"]
_CALLS = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder, whose streams read each token once."""
    return flagging(tmp_path_factory.mktemp("guard") / "guard", tiny_decoder.make_bundle)


@pytest.fixture(scope="module")
def guard(folder: Path) -> Guard:
    """The same in this process."""
    return Guard.load(folder, threads=1)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the replicas write what they read."""
    return tmp_path_factory.mktemp("watched") / "lines.jsonl"


@pytest.fixture(scope="module")
def client(
    folder: Path, watched: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """A client of two replicas, which are started as the documentation says."""
    os.environ[VARIABLE] = str(watched)
    start()
    try:
        port, place = free_port(), tmp_path_factory.mktemp("place")
        (place / "guard").symlink_to(folder)
        settings = '[bundles]\nmain = "guard"\n[guard]\nthreads = 1\n'
        (place / "serve.toml").write_text(settings, encoding="utf-8")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(serving, "Replica", WatchedReplica)
            patch.setattr(ray, "init", lambda: None)
            patch.chdir(place)
            page.run(1, _8000=str(port))
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as opened:
            yield opened
        serve.shutdown()
    finally:
        ray.shutdown()


def _callback(client: httpx.Client, text: str, call: str | None, **headers: str) -> Any:
    body = {"input_type": "response", "texts": [text], "litellm_call_id": call}
    answer = client.post(_PATH, json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def _growing() -> list[str]:
    return ["".join(_WORDS[: n + 1]) for n in range(len(_WORDS))]


def _same(found: dict[str, float], expected: Any) -> None:
    assert found == pytest.approx(
        {name: reading.score for name, reading in expected.readings.items()}, rel=1e-5, abs=1e-6
    )


def test_a_check_is_what_the_guard_says(client: httpx.Client, guard: Guard) -> None:
    """Any replica gives the scores of a guard in one process, to 1e-6."""
    for text in (TOY.harmless, TOY.flagged):
        found, expected = client.post("/v1/check", json={"text": text}).json(), guard.check(text)
        assert found["flagged"] == expected.flagged
        scores = {name: reading["score"] for name, reading in found["readings"].items()}
        assert scores == pytest.approx(
            {name: reading.score for name, reading in expected.readings.items()}, abs=1e-6
        )


def test_every_contract_is_there(client: httpx.Client) -> None:
    """The endpoints of the server, with its forms of errors and its request ids."""
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/v1/check", "/v1/stream", "/v1/bundles"} <= paths.keys()
    assert client.get("/readyz").text == client.get("/livez").text == "ok\n"
    wrong = client.post("/v1/check", json={"txt": "a"}, headers={"x-request-id": "mine"})
    assert (wrong.status_code, wrong.headers["x-request-id"]) == (400, "mine")
    assert "txt" in wrong.json()["error"]["message"]
    no_json = client.post(_PATH, content=b"{")
    assert (no_json.status_code, no_json.json()["action"]) == (400, "BLOCKED")
    assert client.get("/nothing").status_code == 404


def test_a_stream_of_lines_is_answered_line_by_line(client: httpx.Client, guard: Guard) -> None:
    """One connection is one replica: the answer to a line comes before the next line is sent."""
    answered: list[dict[str, Any]] = []

    def lines() -> Iterator[bytes]:
        yield b'{"prompt": "the river"}\n'
        for word in _WORDS:
            yield json.dumps({"chunk": word}).encode() + b"\n"

    with client.stream("POST", "/v1/stream", content=lines()) as response:
        answered = [json.loads(line) for line in response.iter_lines()]
    assert len(answered) == len(_WORDS) + 1
    whole = guard.check(prompt="the river", response="".join(_WORDS))
    _same({n: r["score"] for n, r in answered[-1]["readings"].items()}, whole)


def test_a_call_stays_with_the_replica_that_has_its_answer(
    client: httpx.Client, watched: Path, guard: Guard
) -> None:
    """The n-th callback reads its new words only, wherever the proxy sends it."""
    before = len(seen(watched))
    texts = {
        f"call-{i}": [f"a {'the ' * (i % 5)}{text}" for text in _growing()] for i in range(_CALLS)
    }
    for turn in range(len(_WORDS)):
        for call, growing in texts.items():
            _callback(client, growing[turn], call)
    lines = [line for line in seen(watched)[before:] if line["kind"] == "callback"]
    assert len(lines) == _CALLS * len(_WORDS)
    by_call = [lines[i::_CALLS] for i in range(_CALLS)]
    assert {len({line["pid"] for line in own}) for own in by_call} == {1}
    assert len({own[0]["pid"] for own in by_call}) == 2
    for own in by_call:
        assert [line["opened"] for line in own] == [True] + [False] * (len(_WORDS) - 1)
        _same(own[-1]["scores"], guard.check(prompt="", response=own[-1]["text"]))
        later = [line["tokens"] for line in own[1:]]
        assert max(later) <= 2 * min(later), later  # as many words each: none is read again


def test_without_a_call_id_each_callback_reads_the_whole_text(
    client: httpx.Client, watched: Path, guard: Guard
) -> None:
    """The answer is the same as with one; it costs more, and any replica gives it."""
    before = len(seen(watched))
    for text in _growing():
        flagged = _callback(client, text, None)["action"] == "BLOCKED"
        assert flagged == guard.check(text).flagged
    lines = seen(watched)[before:]
    assert [line["kind"] for line in lines] == ["check"] * len(_WORDS)
    tokens = [line["tokens"] for line in lines]
    assert tokens == sorted(tokens)
    assert tokens[-1] >= tokens[0] + len(_WORDS) - 1
    for line, text in zip(lines, _growing(), strict=True):
        _same(line["scores"], guard.check(text))


def test_an_answer_is_read_after_its_prompt(
    client: httpx.Client, watched: Path, guard: Guard
) -> None:
    """The request of a call goes to the owner of the call too."""
    for call in ("with-a-prompt", "with-another", "with-a-third"):
        body = {"input_type": "request", "texts": [TOY.harmless], "litellm_call_id": call}
        assert client.post(_PATH, json=body).json() == {"action": "NONE"}
        _callback(client, TOY.answer, call)
        line = seen(watched)[-1]
        _same(line["scores"], guard.check(prompt=TOY.harmless, response=TOY.answer))


def test_a_flagged_answer_is_blocked(client: httpx.Client) -> None:
    """In the contract's form, from whichever replica owns the call."""
    for call in ("flagged-1", "flagged-2", "flagged-3", "flagged-4"):
        assert _callback(client, TOY.flagged_answer, call)["action"] == "BLOCKED"


def test_a_client_may_name_the_session_itself(client: httpx.Client, watched: Path) -> None:
    """With Ray Serve's header the proxy sends the call to its owner, and nothing is forwarded."""
    before = len(seen(watched))
    for i in range(8):
        _callback(client, _WORDS[0], f"direct-{i}")
        _callback(client, _growing()[1], f"direct-{i}", **{"x-session-id": f"direct-{i}"})
    lines = seen(watched)[before:]
    assert [line["opened"] for line in lines] == [True, False] * 8


def test_the_metrics_are_those_of_all_replicas(client: httpx.Client) -> None:
    """Each sample says of which replica it is."""
    before = _requests(client)
    for _ in range(20):
        client.post("/v1/check", json={"text": "a"})
    after = _requests(client)
    assert sum(after.values()) - sum(before.values()) == 20
    assert len(after) == 2


def _requests(client: httpx.Client) -> dict[str, float]:
    """Checks of the native contract by replica."""
    found: dict[str, float] = {}
    for line in client.get("/metrics").text.splitlines():
        if line.startswith("layerguard_requests_total{") and 'contract="native"' in line:
            replica = line.partition('replica="')[2].partition('"')[0]
            found[replica] = found.get(replica, 0) + float(line.rpartition(" ")[2])
    return found


def test_a_call_whose_replica_is_gone_is_answered_by_another(
    client: httpx.Client, watched: Path, guard: Guard
) -> None:
    """The text is read from its beginning there, and the answer is the same."""
    _callback(client, _growing()[0], "orphan")
    owner = seen(watched)[-1]["pid"]
    os.kill(owner, signal.SIGKILL)
    until = time.monotonic() + 60
    while True:
        body = {"input_type": "response", "texts": [_growing()[-1]], "litellm_call_id": "orphan"}
        answer = client.post(_PATH, json=body)
        if answer.status_code == 200:
            break
        assert time.monotonic() < until, answer.text
        time.sleep(0.2)
    line = seen(watched)[-1]
    assert line["pid"] != owner
    assert line["opened"]
    _same(line["scores"], guard.check(prompt="", response=_growing()[-1]))


def test_settings_of_ray_serve_are_refused() -> None:
    """The message lists each, and says what to use instead."""
    config = Config(
        {"main": "guard"},
        http=HttpConfig(processes=3, port=9),
        contracts=ContractConfig(extproc_port=1),
    )
    with pytest.raises(InputError, match=r"processes.*num_replicas.*extproc_port.*port: found 9"):
        application(config)


def test_an_argument_without_meaning_is_refused(folder: Path) -> None:
    """With those that there are."""
    with pytest.raises(InputError, match="found wings; expected bundle"):
        build({"bundle": str(folder), "wings": 2})
    with pytest.raises(InputError, match="num_replicas: found 0"):
        build({"bundle": str(folder), "num_replicas": 0})
    assert build({"bundle": f"main={folder}", "num_replicas": 2, "threads": 1}) is not None
