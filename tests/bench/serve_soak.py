"""Does the server keep its answers apart, its memory flat and its word, at twice its capacity?

Requests of mixed length arrive twice as fast as the server can answer them, and the bundle is
exchanged for another one again and again. Every answer is compared with the scores that its own
text has in the bundle that the answer names; every other status must be 503. Exits with 1 if one of
these does not hold, or if the server's memory grows by a tenth after the first tenth of requests.
"""

import argparse
import asyncio
import itertools
import math
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from layerguard.runtime import Guard
from tests.bench.harness import report
from tests.bench.minilm import calibrated
from tests.bench.serving import Client, ask, texts
from tests.runtime.server.processes import served

_WORDS = (3, 8, 20, 64, 150, 400)
_CLIENTS = 256
_KEY = "operator"
_TOLERANCE = 1e-4
"""Of a score, relative: a text in a batch against the same text alone, in float32."""
_MOST_GROWTH = 0.1

Scores = dict[str, float]


@dataclass
class Soak:
    """What was sent, and what came back.

    Attributes:
        expected: scores by id of the bundle and by text.
        statuses: how many answers had each status.
        bundles: how many answers came from each bundle.
        faults: sentences about answers that are wrong.
    """

    port: int
    expected: dict[str, dict[str, Scores]]
    statuses: Counter[int] = field(default_factory=Counter)
    bundles: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    async def send(self, asked: Sequence[str], requests: int, rate: float) -> None:
        """Send so many requests, at most so many a second."""
        began, numbers = time.perf_counter(), itertools.count()

        async def one() -> None:
            client = Client(self.port)
            while (number := next(numbers)) < requests:
                await asyncio.sleep(began + number / rate - time.perf_counter())
                text = asked[number % len(asked)]
                self.judge(text, *await client.post("/v1/check", {"text": text}))
            client.close()

        await asyncio.gather(*(one() for _ in range(_CLIENTS)))

    def judge(self, text: str, status: int, answer: Any) -> None:
        """Compare an answer with what its text should have."""
        self.statuses[status] += 1
        if status == 503:
            return
        if status != 200:
            self.faults.append(f"found status {status} ({answer})")
            return
        self.bundles[answer["bundle_id"]] += 1
        for name, score in self.expected[answer["bundle_id"]][text].items():
            found = answer["readings"][name]["score"]
            if not abs(found - score) <= _TOLERANCE * (1 + abs(score)):
                self.faults.append(f"{text[:40]!r}: {name} is {found}; expected {score}")

    async def reload(self, link: Path, targets: Sequence[Path], every_s: float) -> None:
        """Exchange the bundle for ever."""
        client = Client(self.port)
        for target in itertools.cycle(targets):
            await asyncio.sleep(every_s)
            fresh = link.with_name("fresh")
            fresh.symlink_to(target)
            fresh.replace(link)
            status, answer = await client.post("/admin/reload", {}, f"x-api-key: {_KEY}")
            if status != 200:
                self.faults.append(f"a reload had status {status} ({answer})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, help="a bundle; else MiniLM is calibrated")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--reload-s", type=float, default=10.0, help="seconds between reloads")
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        first = arguments.bundle or calibrated()
        second = _another(first, Path(folder) / "second")
        asked, expected = _expectations([second, first])
        link, keys = Path(folder) / "bundle", Path(folder) / "keys"
        link.symlink_to(first.resolve())
        keys.write_text(_KEY, encoding="utf-8")
        flags = ("--queue-requests", "64", "--admin-keys-file", str(keys))
        with served(link, *flags) as (process, port):
            soak = Soak(port, expected)
            capacity = len(asyncio.run(ask(port, asked, 32, 10.0))) / 10
            row = asyncio.run(_measured(soak, process.pid, link, (second, first), asked,
                                        arguments, 2 * capacity))  # fmt: skip
    report("serve_soak", "Does the server keep its answers apart and its memory flat?",
           [{"capacity/s": capacity, **row}])  # fmt: skip
    if row["growth"] > _MOST_GROWTH:
        soak.faults.append(f"memory grew by {row['growth']:.1%}; expected at most a tenth")
    if len(soak.bundles) < len(expected):
        soak.faults.append("not every bundle answered: the reloads exchanged nothing")
    if soak.faults:
        raise SystemExit("\n".join([f"{len(soak.faults)} faults:", *soak.faults[:20]]))


async def _measured(
    soak: Soak,
    pid: int,
    link: Path,
    targets: Sequence[Path],
    asked: Sequence[str],
    arguments: argparse.Namespace,
    rate: float,
) -> dict[str, Any]:
    reloading = asyncio.create_task(soak.reload(link, targets, arguments.reload_s))
    began = time.perf_counter()
    await soak.send(asked, arguments.requests // 10, rate)
    start = _resident_mb(pid)
    await soak.send(asked, arguments.requests - arguments.requests // 10, rate)
    end = _resident_mb(pid)
    reloading.cancel()
    return {
        "requests": soak.statuses.total(),
        "a second": soak.statuses.total() / (time.perf_counter() - began),
        "answered": soak.statuses[200],
        "refused (503)": soak.statuses[503],
        "wrong": len(soak.faults),
        "from each bundle": " ".join(str(count) for count in soak.bundles.values()),
        "MB at start": start,
        "MB at end": end,
        "growth": end / start - 1,
    }


def _another(bundle: Path, folder: Path) -> Path:
    """The same bundle under another id."""
    shutil.copytree(bundle.resolve(), folder)
    with (folder / "manifest.json").open("a", encoding="utf-8") as manifest:
        manifest.write("\n")
    return folder


def _expectations(bundles: Sequence[Path]) -> tuple[list[str], dict[str, dict[str, Scores]]]:
    """Texts that no two of can be confused, and their scores in each bundle."""
    guards = [Guard.load(bundle, threads=1) for bundle in bundles]
    mixed = [text for row in zip(*(texts(words, 64) for words in _WORDS), strict=True)
             for text in row]  # fmt: skip
    expected = {
        guard.bundle.id: {
            text: {name: one.score for name, one in guard.check(text).readings.items()}
            for text in mixed
        }
        for guard in guards
    }
    scores = next(iter(expected.values()))
    apart: set[str] = set()
    last = -math.inf
    for first, text in sorted((next(iter(scores[text].values())), text) for text in mixed):
        if first - last > 4 * _TOLERANCE * (1 + abs(first)):
            apart.add(text)
            last = first
    return [text for text in mixed if text in apart], expected


def _resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main()
