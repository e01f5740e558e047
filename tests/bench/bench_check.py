"""What does ``Guard.check`` cost end to end, and how much of it is ours?

MiniLM with LCF and SIREN, against the same model in PyTorch eager with the same two detectors in
numpy; then what is spent outside ``session.run``; then two threads against one.
"""

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from layerguard.runtime import Guard
from layerguard.runtime.types import Array
from tests.bench.harness import measure, report
from tests.bench.minilm import calibrated, model_folder
from tests.tiny import make_bundle

_WORDS = (8, 32, 128, 500)
_GOAL_OUTSIDE_US = 50
_GOAL_THREADS = 1.8


def main() -> None:
    guard = Guard.load(calibrated())
    rows: list[dict[str, Any]] = []
    for words in _WORDS:
        text = " ".join(["garden"] * words)
        both = {"ours": partial(guard.check, text), "torch": _in_pytorch(guard, text)}
        seconds = measure(both, rounds=21)
        rows.append(
            {
                "what": f"check, {words} words",
                "ours ms": seconds["ours"] * 1e3,
                "PyTorch ms": seconds["torch"] * 1e3,
                "ratio": seconds["torch"] / seconds["ours"],
            }
        )
    with TemporaryDirectory() as folder:
        toy = Guard.load(make_bundle(Path(folder) / "toy"))
        for name, found in (("MiniLM, caches cold", guard), ("a toy graph, caches warm", toy)):
            for stage, microseconds in _outside_run(found).items():
                goal = _GOAL_OUTSIDE_US if stage == "all" else None
                rows.append(
                    {
                        "what": f"outside session.run, {name}: {stage}",
                        "ours ms": microseconds / 1e3,
                        "goal": goal and f"<= {goal / 1e3} ms",
                    }
                )
    single = Guard.load(calibrated(), threads=1)
    rates = {threads: _rate(single, threads) for threads in (1, 2)}
    rows.append({"what": "checks a second, 2 threads / 1", "ratio": rates[2] / rates[1],
                 "goal": f">= {_GOAL_THREADS}"})  # fmt: skip
    report("check", "Guard.check end to end on all-MiniLM-L6-v2", rows)


def _in_pytorch(guard: Guard, text: str) -> Callable[[], object]:
    """The same model and detectors with PyTorch and numpy, as a service would write them."""
    folder = model_folder()
    model, tokenizer = (
        AutoModel.from_pretrained(folder).eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    lcf, siren = guard.bundle.params["lcf"], guard.bundle.params["siren"]

    def check() -> tuple[float, float]:
        with torch.inference_mode():
            encoded = tokenizer(text, return_tensors="pt", truncation=True)
            states = model(**encoded, output_hidden_states=True).hidden_states
            last = np.stack([state[0, -1].numpy() for state in states])
            mean = np.stack([state[0].mean(0).numpy() for state in states])
        return _lcf(lcf, last), _siren(siren, mean)

    found = check()
    readings = guard.check(text).readings
    np.testing.assert_allclose(found[0], readings["lcf"].score, rtol=1e-3)
    np.testing.assert_allclose(found[1], readings["siren"].score, atol=1e-3)
    return check


def _lcf(params: Any, states: Array) -> float:
    z = (np.diff(states, axis=0) - params["mu"]) / params["sigma"]
    z = (np.linalg.norm(z, axis=1) - params["score_mean"]) / params["score_scale"] - params[
        "centre"
    ]
    return float(np.sqrt(z @ params["precision"] @ z))


def _siren(params: Any, states: Array) -> float:
    offsets = params["neuron_offsets"]
    parts = [
        alpha * states[layer][params["neurons"][offsets[i] : offsets[i + 1]]]
        for i, (layer, alpha) in enumerate(zip(params["layers"], params["alpha"], strict=True))
    ]
    value = np.concatenate(parts)
    depth = sum(name.startswith("weight_") for name in params)
    for i in range(depth):
        value = params[f"weight_{i}"] @ value + params[f"bias_{i}"]
        value = np.maximum(value, 0) if i < depth - 1 else value
    return float(1 / (1 + np.exp(value[0] - value[1])))


def _outside_run(guard: Guard) -> dict[str, float]:
    """Median microseconds of a check outside ``session.run``: in all, tokenizing, scoring."""
    session = guard.backbone.session
    run = session.run
    inside = 0.0

    def timed(outputs: Any, feeds: Any) -> Any:
        nonlocal inside
        start = time.perf_counter()
        result = run(outputs, feeds)
        inside = time.perf_counter() - start
        return result

    session.run = timed  # type: ignore[method-assign]
    stages: dict[str, list[float]] = {"all": [], "tokenize": [], "score": []}
    try:
        for _ in range(500):
            start = time.perf_counter()
            verdict = guard.check("What time does the last train leave?")
            stages["all"].append((time.perf_counter() - start - inside) * 1e6)
            for stage in ("tokenize", "score"):
                stages[stage].append(verdict.timings_ms[stage] * 1e3)
    finally:
        session.run = run  # type: ignore[method-assign]
    return {stage: statistics.median(values) for stage, values in stages.items()}


def _rate(guard: Guard, threads: int) -> float:
    """Checks a second from so many threads; the better of three trials."""
    texts = [" ".join(["garden"] * 32)] * (100 * threads)
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(3):
            start = time.perf_counter()
            list(pool.map(guard.check, texts))
            best = max(best, len(texts) / (time.perf_counter() - start))
    return best


if __name__ == "__main__":
    main()
