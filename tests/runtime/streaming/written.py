"""Comparison of streams with checks on a real model, for the test and the benchmark."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

from layerguard.runtime import Guard
from layerguard.runtime.cli import main as layerguard
from tests.random_detectors import freeze, make_params
from tests.runtime.streaming.cases import chunked, same
from tests.tiny_decoder import CORPUS

BASE_LAYERS, BASE_WIDTH = 8, 192


def trained_guard(shared: Path, folder: Path) -> Guard:
    """A guard on the small trained model of ``shared`` with LCF, SIREN and WeightWatch."""
    exported = folder / "exported"
    if layerguard(["export", str(shared / "models" / "base"), "-o", str(exported)]) != 0:
        raise SystemExit("the export failed")
    frozen = freeze(exported, folder / "guard", make_params(BASE_LAYERS, BASE_WIDTH))
    return Guard.load(frozen, threads=1)


def dialogues(shared: Path, count: int) -> Iterator[tuple[str, str]]:
    """Prompts and answers: rows of the backdoor sets, with other alphabets and emoji in turn."""
    path = shared / "data" / "backdoor_triggers_test.jsonl"
    with path.open(encoding="utf-8") as lines:
        for index, line in zip(range(count), lines, strict=False):
            text = json.loads(line)["text"]
            other = CORPUS[index % len(CORPUS)]
            yield text, f"{other} {text[: len(text) // 2]} {CORPUS[(index + 3) % len(CORPUS)]}"


def compare(guard: Guard, prompt: str, answer: str, seed: int) -> int:
    """Compare every push of random bytes with ``check``; return the number of comparisons."""
    rng, read, pushes = random.Random(seed), b"", 0
    sizes = [rng.randint(1, 24) for _ in range(len(answer.encode()))] or [1]
    with guard.stream(prompt=prompt) as stream:
        same(stream.verdict, guard.check(prompt=prompt))
        for chunk in chunked(answer.encode(), sizes):
            read += chunk
            verdict = stream.push(chunk)
            same(verdict, guard.check(prompt=prompt, response=read.decode(errors="ignore")))
            pushes += 1
        if stream.rescoring is not None:
            raise AssertionError(f"read anew: {stream.rescoring}")
    return pushes
