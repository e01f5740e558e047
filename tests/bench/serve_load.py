"""How does latency grow with the load, and what does the server add to ``Guard.check_batch``?

all-MiniLM-L6-v2 with both detectors, behind ``layerguard serve`` and behind a server that gives
every request a run of its own. The clients share the machine with the server. ``--peer`` adds
infinity, a server that batches embeddings.
"""

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from layerguard.runtime import Guard
from tests.bench import serve_peer
from tests.bench.harness import report
from tests.bench.minilm import CACHE, calibrated
from tests.bench.serving import Client, ask, texts
from tests.runtime.server.processes import COMMAND, served

_SERVERS = {
    "layerguard": (COMMAND, ("--deadline-s", "600")),
    "naive": ((sys.executable, "-m", "tests.bench.serve_naive"), ()),
}
_WORDS = (8, 64, 400)
_CLIENTS = (1, 2, 8, 32)
_GOAL_OVERHEAD_MS = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, help="a bundle; else MiniLM is calibrated")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--peer", action="store_true", help="also measure infinity (about 1 GB)")
    parser.add_argument("--environments", type=Path, default=CACHE / "gateways")
    arguments = parser.parse_args()
    bundle = arguments.bundle or calibrated()
    rows: list[dict[str, Any]] = []
    with served(bundle) as (process, port):
        rows.append(_overhead(Guard.load(bundle, threads=1), process.pid, port))
        print(rows[-1], file=sys.stderr, flush=True)
    for name, (command, flags) in _SERVERS.items():
        with served(bundle, *flags, command=command) as (_, port):
            rows += _curve(name, port, arguments.seconds)
    if arguments.peer:
        with serve_peer.serving(arguments.environments.resolve()) as port:
            rows += _curve("infinity", port, arguments.seconds, serve_peer.PATH, serve_peer.body)
    report("serve_load", "How does latency grow with the load?", rows)


def _curve(name: str, port: int, seconds: float, *form: Any) -> Iterator[dict[str, Any]]:
    """A row for each length of text and number of clients; ``form`` is that of ``ask``."""
    for words in _WORDS:
        for clients in _CLIENTS:
            times = asyncio.run(ask(port, texts(words, 64), clients, seconds, *form))
            row = {"server": name, "words": words, "clients": clients}
            row |= _figures(times, seconds)
            print(row, file=sys.stderr, flush=True)
            yield row


def _figures(times: list[float], seconds: float) -> dict[str, float]:
    figures = {f"p{level} ms": float(np.percentile(times, level) * 1e3) for level in (50, 95, 99)}
    return {**figures, "texts/s": len(times) / seconds}


def _overhead(guard: Guard, pid: int, port: int, rounds: int = 300) -> dict[str, Any]:
    """What a request costs more than a call, asked in turn, in wall time and in CPU time.

    CPU time is that of the server's process less that of the call: on a machine that is busy with
    other work, wall time measures that work.
    """

    async def measured() -> dict[str, Any]:
        client = Client(port)
        calls, requests = [], []
        call_cpu = 0.0
        await client.post("/v1/check", {"text": "warm"})
        server_cpu = cpu_s(pid)
        for text in texts(8, rounds):
            began, began_cpu = time.perf_counter(), time.process_time()
            guard.check_batch([text])
            between = time.perf_counter()
            call_cpu += time.process_time() - began_cpu
            await client.post("/v1/check", {"text": text})
            calls.append(between - began)
            requests.append(time.perf_counter() - between)
        server_cpu = cpu_s(pid) - server_cpu
        client.close()
        return {
            "server": "layerguard - check_batch",
            "words": 8,
            "clients": 1,
            "p50 ms": (statistics.median(requests) - statistics.median(calls)) * 1e3,
            "least ms": (min(requests) - min(calls)) * 1e3,
            "CPU ms": (server_cpu - call_cpu) / rounds * 1e3,
            "goal": f"p50 < {_GOAL_OVERHEAD_MS:g}",
        }

    return asyncio.run(measured())


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
