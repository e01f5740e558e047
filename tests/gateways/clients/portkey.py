"""Portkey's gateway with the configuration of the page."""

import json
from collections.abc import Iterator

import httpx

from tests.gateways.environments import node_modules
from tests.gateways.processes import free_port, running
from tests.gateways.setting import Outcome, Setting, configurations

_DENIED = 446


def drive(setting: Setting) -> Iterator[Outcome]:
    """One outcome: requests and answers; streams are not checked by this gateway."""
    package = node_modules(setting.environments, "portkey") / "@portkey-ai" / "gateway"
    version = json.loads((package / "package.json").read_text(encoding="utf-8"))["version"]
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = ["node", str(package / "build" / "start-server.js"), f"--port={port}", "--headless"]
    (text,) = configurations("Portkey", "json")
    outcome = Outcome("Portkey, webhook", version)
    with (
        running(command, address, setting.logs / "portkey.log"),
        httpx.Client(base_url=address, timeout=60) as client,
    ):

        def status(prompt: str, *, overloaded: bool = False) -> int:
            config = json.loads(setting.configured(text, overloaded=overloaded))
            return client.post(
                "/v1/chat/completions",
                headers={"x-portkey-config": json.dumps(config)},
                json={"model": "chat", "messages": [{"role": "user", "content": prompt}]},
            ).status_code

        outcome.blocked = [status(one) == _DENIED for one in setting.block]
        outcome.passed = [status(one) == httpx.codes.OK for one in setting.passes]
        found = status(setting.bad_answer)
        outcome.expect(found == _DENIED, f"a flagged answer gave {found}")
        found = status(setting.passes[0], overloaded=True)
        outcome.expect(found == _DENIED, f"an overloaded guard gave {found}")
        outcome.overload = "blocks" if found == _DENIED else str(found)
        found = status("x" * 5_000_000)
        outcome.expect(found == _DENIED, f"a text that is too large gave {found}")
        outcome.error = "blocks" if found == _DENIED else str(found)
    yield outcome
