"""Where do the seconds of ``Guard.load`` go, what stays in memory, and what do mapped weights cost?

For MiniLM and for each bundle named on the command line: packed weights (the default) against
mapped ones, in processes of their own that take turns. Seconds are of the processor, with one
thread, so that another load of the machine moves them little; memory is what is resident.

    python -m tests.bench.loading [BUNDLE...]
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from layerguard.runtime.bundle.files import WEIGHTS
from tests.bench.harness import report
from tests.bench.minilm import calibrated

_RUNS = 3

_PROCESS = """
import json, sys, time
from statistics import median
seconds, resident = {}, {}
def stage(name):
    global start
    seconds[name] = time.process_time() - start
    lines = dict(line.split(":") for line in open("/proc/self/status"))
    resident[name] = [int(lines[key].split()[0]) / 1024 for key in ("VmRSS", "RssAnon")]
    start = time.process_time()
def cost(call, times):
    call()
    each = []
    for _ in range(times):
        begun = time.process_time()
        call()
        each.append(time.process_time() - begun)
    return median(each) * 1e3
start = 0.0
from layerguard.runtime import Bundle, Guard
from layerguard.runtime.model.backbone import Backbone
from layerguard.runtime.binding import bind_detectors
from layerguard.runtime.bundle.canaries import replay_canaries
from layerguard.runtime.model.session import load_onnxruntime
load_onnxruntime()
path, weights = sys.argv[1:]
stage("import")
bundle = Bundle.load(path)
stage("hash and parse")
backbone = Backbone(bundle, "cpu", 1, weights)
stage("score session")
guard = Guard(bundle, backbone, bind_detectors(bundle))
replay_canaries(bundle, guard.check)
stage("canaries")
streamed = guard.streams.rescoring is None
if streamed:
    guard.streams.resources
stage("decode session")
ms = {}
for words, times in ((8, 9), (64, 5), (400, 3)):
    text = " ".join(["garden"] * words)
    ms[f"check {words}"] = cost(lambda: guard.check(text), times)
stage("checks")
if streamed:
    with guard.stream(prompt=" ".join(["garden"] * 32)) as stream:
        ms["token"] = cost(lambda: stream.push(" garden"), 15)
stage("tokens")
print(json.dumps([seconds, resident, ms]))
"""

_LOADING = ("hash and parse", "score session", "canaries", "decode session")


def main() -> None:
    rows: list[dict[str, Any]] = []
    for bundle in (calibrated(), *map(Path, sys.argv[1:])):
        found: dict[str, list[Any]] = {"packed": [], "mapped": []}
        for _ in range(_RUNS):
            for weights, runs in found.items():
                runs.append(_run(bundle, weights))
        mib = (bundle / WEIGHTS).stat().st_size / 2**20
        rows += [_row(bundle.name, weights, runs, mib) for weights, runs in found.items()]
    report("loading", "Seconds of the processor by stage of loading; resident MiB; ms", rows)


def _run(bundle: Path, weights: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", _PROCESS, str(bundle), weights],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def _row(bundle: str, weights: str, runs: list[Any], mib: float) -> dict[str, Any]:
    seconds, resident, ms = (
        [{key: run[part][key] for key in run[part]} for run in runs] for part in range(3)
    )

    def middle(parts: list[dict[str, Any]], key: str, place: int | None = None) -> float:
        return statistics.median(p[key] if place is None else p[key][place] for p in parts)

    loaded, served = middle(resident, "canaries", 0), middle(resident, "tokens", 0)
    return {
        "bundle": bundle,
        "weights": weights,
        "weights MiB": mib,
        **{f"{key} s": middle(seconds, key) for key in _LOADING},
        "loaded MiB": loaded,
        "served MiB": served,
        "of it anonymous": middle(resident, "tokens", 1),
        "served / weights": served / mib,
        **{f"{key} ms": middle(ms, key) for key in ms[0]},
    }


if __name__ == "__main__":
    main()
