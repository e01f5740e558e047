"""The audit log: what it holds, what it does not hold, and what ``verify`` sees."""

import asyncio
import hmac
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from layerguard.runtime import InputError
from layerguard.runtime.cli import main
from layerguard.runtime.server.audit import text_hmac, verify
from layerguard.runtime.server.config import AuditConfig
from layerguard.runtime.server.service import Service
from layerguard.runtime.text.request import request
from tests.runtime.server.conftest import Connected

Make = Callable[..., Service]
_KEY = b"0123456789abcdef"
_TEXTS = ("the garden was quiet", "rain came over low hills", "river boats")


@pytest.fixture
def config(tmp_path: Path) -> AuditConfig:
    """Settings of a chained log."""
    (tmp_path / "key").write_bytes(_KEY + b"\n")
    return AuditConfig(str(tmp_path / "log"), str(tmp_path / "key"), "on")


def _ask(
    service: Service, connected: Connected, texts: Sequence[str] = _TEXTS, path: str = "/v1/check"
) -> list[int]:
    async def whole() -> list[int]:
        async with connected(service) as client:
            await service.reload()
            headers = {"x-request-id": "mine"}
            asked = [client.post(path, json={"text": one}, headers=headers) for one in texts]
            return [(await one).status_code for one in asked]

    return asyncio.run(whole())


def _lines(config: AuditConfig) -> list[dict[str, Any]]:
    content = Path(config.audit_file).read_text(encoding="utf-8")
    return [json.loads(line) for line in content.splitlines()]


def test_each_answer_has_a_line_without_its_text(
    make_service: Make, connected: Connected, config: AuditConfig
) -> None:
    """With the decision and what it was made of; the text only as its HMAC."""
    service = make_service(audit=config)
    assert _ask(service, connected) == [200] * 3
    content = Path(config.audit_file).read_text(encoding="utf-8")
    assert not any(word in content for text in _TEXTS for word in text.split() if len(word) > 4)
    found = _lines(config)
    assert [line["text_hmac"] for line in found] == [
        hmac.digest(_KEY, text.encode(), "sha256").hex() for text in _TEXTS
    ]
    guard = service.guards["main"]
    for line in found:
        assert (line["request_id"], line["contract"], line["bundle"]) == ("mine", "native", "main")
        assert line["bundle_id"] == guard.bundle.id
        assert line["decision"] == "pass"
        assert line["latency_ms"] > 0
        assert line["scores"].keys() == line["thresholds"].keys()
        assert line["p_values"].keys() == {"", *line["scores"]}


def test_settings_that_decide_change_the_hash(make_service: Make) -> None:
    """So that a line tells under which settings it was decided."""
    hashes = {make_service(guard)._settings for guard in ({}, {}, {"mode": "shadow"})}
    assert len(hashes) == 2


def test_the_hmac_tells_requests_apart() -> None:
    """By all of their parts, and by what was written of the answer."""
    chat: list[dict[str, Any]] = [{"role": "user", "content": "a"}]
    different = [
        text_hmac(_KEY, request("a")),
        text_hmac(_KEY, request(prompt="a", response="b")),
        text_hmac(_KEY, request(messages=chat)),
        text_hmac(_KEY, request(messages=chat, tools=[{"name": "b"}])),
        text_hmac(_KEY, request(messages=chat), "b"),
        text_hmac(b"another key of 16", request("a")),
    ]
    assert len(set(different)) == len(different)
    assert text_hmac(_KEY, request("a"), "b") == different[1]


def test_a_log_is_continued(make_service: Make, connected: Connected, config: AuditConfig) -> None:
    """By the next server; the chain goes on, and does in a file that begins anew."""
    for _ in range(2):
        _ask(make_service(audit=config), connected)
    lines = _lines(config)
    assert lines[3]["previous"] == lines[2]["chain"]
    assert verify(Path(config.audit_file), _KEY) == (6, lines[-1]["chain"], [])

    async def rotated() -> None:
        service = make_service(audit=config)
        await service.reload()
        await asyncio.to_thread(os.rename, config.audit_file, f"{config.audit_file}.1")
        await service.reload()
        await service.check([request("a")], contract="native")
        await service.drain()

    asyncio.run(rotated())
    (line,) = _lines(config)
    assert line["previous"] == lines[-1]["chain"]


def _tampered(lines: list[bytes]) -> dict[str, list[bytes]]:
    first, second, third = lines
    changed = second.replace(b'"decision":"pass"', b'"decision":"flag"')
    twice = second.replace(b'"decision"', b'"decision":"flag","decision"', 1)
    return {
        "line 2: it was changed": [first, changed, third],
        "line 2: it was changed, or": [first, twice, third],
        "line 2: it does not follow": [first, third],
        "line 3: it does not follow": [first, second, second, third],
        "line 3: found no chain; it was cut off": [first, second, third[:40]],
    }


@pytest.mark.parametrize("said", _tampered([b"", b"", b""]))
def test_what_was_done_to_a_log_is_seen(
    make_service: Make, connected: Connected, config: AuditConfig, said: str
) -> None:
    """A line that was changed, written twice, left out or cut off."""
    _ask(make_service(audit=config), connected)
    log = Path(config.audit_file)
    log.write_bytes(b"".join(_tampered(log.read_bytes().splitlines(keepends=True))[said]))
    _, _, faults = verify(log, _KEY)
    assert faults
    assert faults[0].startswith(said)


def test_the_command_verifies(
    make_service: Make,
    connected: Connected,
    config: AuditConfig,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """0 and the last chain, or 2 and the faults."""
    _ask(make_service(audit=config), connected)
    command = ["audit-log", "verify", config.audit_file, "--key-file", config.audit_key_file]
    assert main(command) == 0
    last = _lines(config)[-1]["chain"]
    assert capsys.readouterr().out == f"3 lines verified; the last chain is {last}\n"
    Path(config.audit_key_file).write_bytes(b"x" * 16)
    assert main(command) == 2
    assert "faults found: 3, in 3 lines; expected none" in capsys.readouterr().err


def test_an_answer_that_cannot_be_written_down_is_not_given(
    make_service: Make, connected: Connected, config: AuditConfig
) -> None:
    """Unless the operator lets failures pass."""
    full = AuditConfig("/dev/full", config.audit_key_file)  # not chained: nothing is read
    assert _ask(make_service(audit=full), connected, _TEXTS[:1]) == [500]
    allowing = make_service({"on_error": "allow"}, audit=full)
    assert _ask(allowing, connected, _TEXTS[:1]) == [200]


@pytest.mark.parametrize(
    ("file", "key", "said"),
    [
        ("log", "", "audit_file needs audit_key_file"),
        ("log", "none", "expected a file with a key"),
        ("log", "short", "found a key of 2 bytes; expected at least 16"),
        ("none/log", "key", "expected a file for the audit log"),
    ],
)
def test_a_log_that_cannot_be_written_is_refused_at_the_start(
    make_service: Make, tmp_path: Path, file: str, key: str, said: str
) -> None:
    """Not with the first answer."""
    (tmp_path / "key").write_bytes(_KEY)
    (tmp_path / "short").write_bytes(b"ab")
    config = AuditConfig(str(tmp_path / file), str(tmp_path / key) if key else "")
    with pytest.raises(InputError, match=said):
        make_service(audit=config)
