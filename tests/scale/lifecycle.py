"""Starts a cluster, serves, runs a job, ends it, and prints what is left: ``test_processes.py``.

    python -m tests.scale.lifecycle BUNDLE FOLDER

FOLDER has ``rows.jsonl``; the audit logs of the replicas are written there.
"""

import json
import os
import sys
import time
from pathlib import Path

import httpx

from layerguard.runtime.server.config import AuditConfig, Config, GuardConfig
from tests.scale.cluster import free_port, start

_WAIT_S = 60


def main(bundle: Path, folder: Path) -> None:
    """Print the processes that ran, and those that are left, as JSON."""
    start()
    import ray  # noqa: PLC0415  it reads its variables at once
    from ray import serve  # noqa: PLC0415

    from layerguard.scale.ray import Workers, application, score  # noqa: PLC0415

    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    audit = AuditConfig(str(folder / "audit.jsonl"), str(folder / "audit.key"), "on")
    config = Config({"main": str(bundle)}, guard=GuardConfig(threads=1), audit=audit)
    serve.run(application(config, num_replicas=2, ray_actor_options={"num_cpus": 0.1}))
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        for i in range(12):
            client.post("/v1/check", json={"text": f"the garden {i}"}).raise_for_status()
    job = Workers(count=1, cpus=0.5)
    rows = score(bundle, folder / "rows.jsonl", folder / "out.jsonl", workers=job).rows
    ran = _descendants()
    serve.shutdown()
    ray.shutdown()
    until = time.monotonic() + _WAIT_S
    while (left := _alive(ran)) and time.monotonic() < until:
        time.sleep(0.1)
    names = {pid: name for (pid, _), name in ran.items()}
    left_names = [name for _, name in left.items()]
    print(json.dumps({"rows": rows, "ran": sorted(names.values()), "left": left_names}))


def _descendants() -> dict[tuple[int, str], str]:
    """The processes below this one: id and start time, and the command."""
    parents: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        found = _stat(status)
        if found is not None:
            parents[int(status.parent.name)] = int(found[1])
    below = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= more
    below.discard(os.getpid())
    named: dict[tuple[int, str], str] = {}
    for pid in below:
        found = _stat(Path(f"/proc/{pid}/stat"))
        if found is not None:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            named[pid, found[19]] = b" ".join(command[:2]).decode(errors="replace")
    return named


def _alive(ran: dict[tuple[int, str], str]) -> dict[tuple[int, str], str]:
    """Those that are still there, and no zombies."""
    left = {}
    for (pid, began), name in ran.items():
        found = _stat(Path(f"/proc/{pid}/stat"))
        if found is not None and found[19] == began and found[0] != "Z":
            left[pid, began] = name
    return left


def _stat(path: Path) -> list[str] | None:
    """The fields of a process after its name: state, parent and so on; None if it is gone."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
