"""Drive the real clients of every contract against a real server on this machine.

    python -m tests.gateways.drive [--only NAME] [--bundle FOLDER] [--environments FOLDER]

The clients are installed at pinned versions into environments of their own, about 1.5 GB. A client
that cannot be installed is named with the reason. Exits with 1 if a client did something else than
the guard's verdict asks for.
"""

import argparse
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from layerguard.runtime.rows.jsonl import read_rows
from tests.bench.minilm import CACHE, PROMPTS, calibrated
from tests.gateways import model
from tests.gateways.clients import envoy, litellm_proxy, portkey, scripts
from tests.gateways.environments import AbsentError
from tests.gateways.processes import free_port, running
from tests.gateways.setting import Outcome, Setting

CLIENTS: dict[str, Callable[[Setting], Iterator[Outcome]]] = {
    "openai": scripts.openai_sdk,
    "openai-guardrails": scripts.openai_guardrails,
    "triton": scripts.triton,
    "nemo": scripts.nemo,
    "portkey": portkey.drive,
    "envoy": envoy.drive,
    "litellm": litellm_proxy.drive,
}
_TEXTS = 4
"""Texts of each kind."""

_COLUMNS = ("client", "version", "blocked", "passed", "stream", "overload", "error")


def main() -> int:
    """Print the table; 0 if all clients did what they should."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", action="append", choices=CLIENTS, help="drive only this client")
    parser.add_argument("--bundle", type=Path, help="a calibrated bundle (default: MiniLM's)")
    parser.add_argument("--environments", type=Path, default=CACHE / "gateways")
    arguments = parser.parse_args()
    logs = Path(tempfile.mkdtemp(prefix="gateways-"))
    rows: list[Outcome] = []
    failed = False
    with ExitStack() as stack:
        setting = _servers(stack, arguments.bundle or calibrated(), arguments.environments, logs)
        for name in arguments.only or CLIENTS:
            try:
                rows += CLIENTS[name](setting)
            except AbsentError as error:
                print(f"{name}: not run, {error}")
            except Exception:  # noqa: BLE001  the other clients are driven all the same
                failed = True
                traceback.print_exc()
                print(f"{name}: failed; its output is in {logs}")
    _print(rows)
    return int(failed or not rows or not all(row.is_good for row in rows))


def _servers(stack: ExitStack, bundle: Path, environments: Path, logs: Path) -> Setting:
    """Start the guard, one that never answers in time, and a model."""
    ports = free_port(), free_port()
    guard = _serve(stack, bundle, logs / "guard.log", "--extproc-port", str(ports[0]))
    slow = ("--deadline-s", "0.001", "--extproc-port", str(ports[1]))
    overloaded = _serve(stack, bundle, logs / "overloaded.log", *slow)
    block, (prompt, *passes) = _texts(guard)
    kind = passes[0]
    bad = f"{kind} {' '.join(block)} {kind}"
    if not _blocks(guard, {"prompt": prompt, "response": bad}):
        raise SystemExit("the guard does not flag the answer that the streams should stop at")
    address = stack.enter_context(model.serving({prompt: bad}, kind))
    return Setting(
        guard,
        overloaded,
        ports,
        address,
        "minilm",
        block,
        passes,
        prompt,
        environments.resolve(),
        logs,
    )


def _serve(stack: ExitStack, bundle: Path, log: Path, *options: str) -> str:
    port = free_port()
    command = [sys.executable, "-m", "layerguard.runtime.cli", "serve", f"minilm={bundle}"]
    address = f"http://127.0.0.1:{port}"
    stack.enter_context(
        running([*command, "--port", str(port), *options], f"{address}/readyz", log)
    )
    return address


def _texts(guard: str) -> tuple[list[str], list[str]]:
    """Texts that the guard flags, and others and one more: as texts and as chats alike."""
    found: dict[bool, list[str]] = {True: [], False: []}
    bad = read_rows([PROMPTS / "harmful.jsonl"]).good[: 4 * _TEXTS]
    for row in (*bad, *read_rows([PROMPTS / "fresh.jsonl"]).good):
        text = row.request.prompt
        chat = [{"role": "user", "content": text}]
        verdicts = {_blocks(guard, {"text": text}), _blocks(guard, {"messages": chat})}
        if len(verdicts) == 1:
            found[verdicts.pop()].append(text)
    if len(found[True]) < _TEXTS or len(found[False]) <= _TEXTS:
        raise SystemExit(f"the guard does not tell {_TEXTS} bad texts from {_TEXTS + 1} good ones")
    return found[True][:_TEXTS], found[False][: _TEXTS + 1]


def _blocks(guard: str, body: Mapping[str, Any]) -> bool:
    blocked: bool = httpx.post(f"{guard}/v1/check", json=body, timeout=30).json()["blocked"]
    return blocked


def _print(rows: list[Outcome]) -> None:
    table = [_COLUMNS] + [
        (
            row.client,
            row.version,
            f"{sum(row.blocked)}/{len(row.blocked)}",
            f"{sum(row.passed)}/{len(row.passed)}",
            row.stream or "-",
            row.overload or "-",
            row.error or "-",
        )
        for row in rows
    ]
    widths = [max(len(line[i]) for line in table) for i in range(len(_COLUMNS))]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))
    for row in rows:
        for fault in row.faults:
            print(f"FAULT {row.client}: {fault}")


if __name__ == "__main__":
    sys.exit(main())
