"""What do OpenTelemetry's spans cost a request?

    python -m tests.bench.serve_traces [--bundle FOLDER]

Two servers of all-MiniLM-L6-v2, one of which sends spans to a collector on this machine, are asked
in turn. The figure is CPU time of the server's process, so that a busy machine may take it.
"""

import argparse
import asyncio
import statistics
from pathlib import Path
from typing import Any

from tests.bench.harness import report
from tests.bench.minilm import calibrated
from tests.bench.serve_load import cpu_s
from tests.bench.serving import Client, texts
from tests.runtime.server.collector import collecting
from tests.runtime.server.processes import served

_WORDS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, help="a bundle; else MiniLM is calibrated")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--requests", type=int, default=200, help="of each round")
    arguments = parser.parse_args()
    bundle = arguments.bundle or calibrated()
    with (
        collecting() as collector,
        served(bundle) as (plain, plain_port),
        served(bundle, "--traces", "otlp", "--traces-endpoint", collector.url) as (traced, port),
    ):
        servers = {"off": (plain.pid, plain_port), "otlp": (traced.pid, port)}
        rows = _measured(servers, arguments.rounds, arguments.requests)
        assert collector.bodies, "no span was sent"
    report("serve_traces", "What do OpenTelemetry's spans cost a request?", rows)


def _measured(
    servers: dict[str, tuple[int, int]], rounds: int, requests: int
) -> list[dict[str, Any]]:
    """CPU time of a request of each server, the median over rounds, and the ratio."""
    times: dict[str, list[float]] = {name: [] for name in servers}
    for number in range(rounds + 1):
        for name, (pid, port) in servers.items():
            before = cpu_s(pid)
            asyncio.run(_ask(port, requests))
            if number:  # the first one warms up
                times[name].append((cpu_s(pid) - before) / requests * 1e3)
    median = {name: statistics.median(values) for name, values in times.items()}
    return [
        {"traces": name, "CPU ms": value, "ratio": value / median["off"]}
        for name, value in median.items()
    ]


async def _ask(port: int, requests: int) -> None:
    client = Client(port)
    for text in texts(_WORDS, requests):
        await client.post("/v1/check", {"text": text})
    client.close()


if __name__ == "__main__":
    main()
