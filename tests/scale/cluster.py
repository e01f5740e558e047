"""A Ray cluster of two processors on this machine, without a network."""

import os
import socket
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
VARIABLES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",  # a busy machine starts processes slowly
    "RAY_worker_niceness": "0",  # 15 by default: other work would hold the workers up
    "PYTHONPATH": str(ROOT),
}
"""Of Ray's processes."""


def start(**options: Any) -> None:
    """Start it; ``options`` as ``ray.init`` takes them."""
    os.environ.update(VARIABLES)
    import ray  # noqa: PLC0415  installed by `make ray` alone; it reads some variables at once

    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=200_000_000,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
        **options,
    )


def free_port() -> int:
    """A port of this machine that nobody uses."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port
