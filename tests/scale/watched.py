"""What the replicas of a test read: each process writes a line for each text that it reads."""

import json
import os
import threading
from pathlib import Path
from typing import Any

from layerguard.runtime.guard import Guard
from layerguard.runtime.model.session import Session
from layerguard.runtime.server.streams import GrowingAnswer

VARIABLE = "LAYERGUARD_WATCHED"
_local = threading.local()


def watch() -> None:
    """Begin in this process."""
    run, read, check = Session.run, GrowingAnswer.read, Guard.check_requests

    def counted_run(self: Session, outputs: Any, feeds: Any) -> Any:
        _local.tokens = getattr(_local, "tokens", 0) + feeds["input_ids"].size
        return run(self, outputs, feeds)

    def watched_read(self: GrowingAnswer, text: str) -> Any:
        opened, _local.tokens = self._stream is None, 0
        verdict = read(self, text)
        _write("callback", text, verdict, opened=opened)
        return verdict

    def watched_check(self: Guard, requests: Any, *arguments: Any, **named: Any) -> Any:
        _local.tokens = 0
        verdicts = check(self, requests, *arguments, **named)
        for request, verdict in zip(requests, verdicts, strict=True):
            _write("check", request.prompt, verdict, opened=True)
        return verdicts

    Session.run = counted_run  # type: ignore[method-assign]
    GrowingAnswer.read = watched_read  # type: ignore[method-assign]
    Guard.check_requests = watched_check  # type: ignore[method-assign]


def _write(kind: str, text: str, verdict: Any, *, opened: bool) -> None:
    line = {
        "pid": os.getpid(),
        "kind": kind,
        "text": text,
        "opened": opened,
        "tokens": _local.tokens,
        "scores": {name: reading.score for name, reading in verdict.readings.items()},
    }
    with Path(os.environ[VARIABLE]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def seen(path: Path) -> list[dict[str, Any]]:
    """What was written so far."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
