"""Checks of a guard on one GPU in ten minutes: the same numbers, no silent CPU, and what it costs.

    python -m tests.gpu.check --device cuda

Bundles are exported first, several at once. Then each stage runs in a process of its own with a
time limit; one that fails is recorded with its error, and the others run. The answer is a table and
``gpu.json`` in ``--out`` ($OUT, else build/gpu). Exit code 1: a stage that decides has failed.
3: --device cuda, and a stage that decides could not be run.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime

from layerguard.runtime.model.session import PROVIDERS
from tests.bench.harness import REPOSITORY, machine
from tests.gpu import no_fallback, timing
from tests.gpu.bundles import DEPTHS, MAKERS, SHAPES, make
from tests.gpu.parity import parity
from tests.gpu.stage import NotRun, Setting, Stage

_REAL = ("minilm-float32", "minilm-float16", "smollm2-float32", "smollm2-float16")
_FIRST = _REAL[:1]
STAGES: Mapping[str, Stage] = {
    **{
        f"parity:{name}": Stage(partial(parity, name), 90, decides=True, needs=(name,))
        for name in _REAL
    },
    "no-fallback:no-package": Stage(no_fallback.no_package, 60, decides=True, needs=_FIRST),
    "no-fallback:no-device": Stage(
        no_fallback.no_device, 60, decides=True, needs_cuda=True, needs=_FIRST
    ),
    "no-fallback:no-library": Stage(
        no_fallback.no_library, 90, decides=True, needs_cuda=True, needs=_FIRST
    ),
    "io-binding": Stage(partial(timing.io_binding, _REAL[2]), 90, needs=_REAL[2:3]),
    **{
        f"time:{name}": Stage(
            partial(timing.shape, name),
            120,
            large=True,
            needs=tuple(f"{name}-{depth}" for depth in DEPTHS),
        )
        for name in SHAPES
    },
}
"""In the order in which they run: what decides comes first."""

_EXPORT = "export:"
_EXPORT_SECONDS = 300
_POLL_SECONDS = 0.2
_LEAST_SECONDS = 5
Report = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all stages, or one within its own process; the exit code."""
    options = _options(arguments)
    out = options.out or Path(os.environ.get("OUT") or REPOSITORY / "build" / "gpu")
    setting = Setting(options.device, options.bundles or out / "bundles", options.tiny)
    if options.stage:
        print(json.dumps(_run_here(options.stage, setting)))
        return 0
    setting.bundles.mkdir(parents=True, exist_ok=True)
    reports = _run_all(setting, options.budget_seconds, skip_large=options.skip_large)
    content = {
        "device": options.device,
        "providers": onnxruntime.get_available_providers(),
        "machine": {**machine(), "gpu": _nvidia_smi("name,memory.total,driver_version")},
        "stages": reports,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "gpu.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    for name, report in reports.items():
        print(f"{name:<26} {report['status']:<9} {_words(report)}")
    print(f"wrote {out / 'gpu.json'}")
    return exit_code(options.device, reports)


def exit_code(device: str, reports: Mapping[str, Report]) -> int:
    """What the command says of these reports."""
    deciding = [reports[name]["status"] for name, stage in STAGES.items() if stage.decides]
    if {"failed", "timed out"}.intersection(deciding):
        return 1
    wanted = [reports[name]["status"] for name in STAGES if name.startswith("parity:")]
    return 3 if device == "cuda" and "not run" in wanted else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--device", choices=tuple(PROVIDERS), default="cuda", help="default: cuda")
    add("--budget-seconds", type=float, default=570, metavar="N", help="of all stages together")
    add("--skip-large", action="store_true", help="leave out the shapes that need gigabytes")
    add("--out", type=Path, metavar="DIR", help="default: $OUT, else build/gpu")
    add("--bundles", type=Path, metavar="DIR", help="bundles made before (default: in --out)")
    add("--tiny", action="store_true", help="toy models instead of all others; needs no PyTorch")
    add("--stage", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _run_all(setting: Setting, budget: float, *, skip_large: bool) -> dict[str, Report]:
    """The reports of all stages, by name."""
    deadline = time.monotonic() + budget
    refused = {name: _refusal(stage, setting, skip_large) for name, stage in STAGES.items()}
    wanted = [name for name, reason in refused.items() if reason is None]
    needed = dict.fromkeys(bundle for name in wanted for bundle in STAGES[name].needs)

    def export(bundle: str) -> Report:
        if setting.tiny:  # sooner made than a process is started
            return _run_here(f"{_EXPORT}{bundle}", setting)
        return _run_child(f"{_EXPORT}{bundle}", setting, _EXPORT_SECONDS, deadline, watch=False)

    with ThreadPoolExecutor(max(1, len(os.sched_getaffinity(0)) // 2)) as pool:
        made = dict(zip(needed, pool.map(export, needed), strict=True))
    reports = {f"{_EXPORT}{bundle}": report for bundle, report in made.items()}
    for name, stage in STAGES.items():
        reason = refused[name]
        lacking = [made[bundle] for bundle in stage.needs if reason is None]
        reports[name] = (
            {"status": "not run", "reason": reason}
            if reason
            else next((_unmade(report) for report in lacking if report["status"] != "passed"), None)
            or _run_child(name, setting, stage.seconds, deadline, watch=setting.device == "cuda")
        )
    return reports


def _refusal(stage: Stage, setting: Setting, skip_large: bool) -> str | None:
    """Why a stage does not run, known beforehand; None where it does."""
    has_cuda = PROVIDERS["cuda"] in onnxruntime.get_available_providers()
    if not has_cuda and (stage.needs_cuda or (setting.device == "cuda" and not _asks(stage))):
        return "no CUDA provider"
    return "--skip-large" if stage.large and skip_large else None


def _asks(stage: Stage) -> bool:
    """Whether the stage is about a machine without the provider."""
    return stage.run is no_fallback.no_package


def _unmade(report: Report) -> Report:
    """A stage whose bundle is not there: not run, or failed with the export."""
    return {
        "status": report["status"],
        **{key: report[key] for key in ("reason", "error") if key in report},
    }


def _run_child(
    name: str, setting: Setting, seconds: float, deadline: float, *, watch: bool
) -> Report:
    """One stage in a process of its own.

    Args:
        name: of the stage.
        setting: passed on.
        seconds: its limit; less where the budget is nearly used up.
        deadline: of all stages, on the monotonic clock.
        watch: whether to note the most GPU memory in use meanwhile.
    """
    limit = min(seconds, deadline - time.monotonic())
    if limit < _LEAST_SECONDS:
        return {"status": "not run", "reason": "the time budget is used up"}
    command = [
        sys.executable, "-m", "tests.gpu.check", "--stage", name, "--device", setting.device,
        "--bundles", str(setting.bundles), *(["--tiny"] if setting.tiny else []),
    ]  # fmt: skip
    before = _memory_mib() if watch else None
    start = time.monotonic()
    log = setting.bundles / f"{name.replace(':', '-')}.log"
    with log.open("w+", encoding="utf-8") as written:
        child = subprocess.Popen(command, stdout=written, stderr=subprocess.STDOUT, cwd=REPOSITORY)
        peak = before
        while child.poll() is None and time.monotonic() - start < limit:
            time.sleep(_POLL_SECONDS)
            if watch:
                peak = max(peak or 0, _memory_mib() or 0)
        timed_out = child.poll() is None
        if timed_out:
            child.kill()
        child.wait()
        written.seek(0)
        lines = written.read().splitlines()
    report = {"status": "timed out", "error": f"limit {limit:.0f} s"} if timed_out else _said(lines)
    report["seconds"] = round(time.monotonic() - start, 1)
    if before is not None and peak is not None:
        report["peak_gpu_mib"] = {"before": before, "most": peak}
    return report


def _said(lines: Sequence[str]) -> Report:
    """The report that a child printed last."""
    try:
        found: Report = json.loads(lines[-1])
    except (IndexError, ValueError):
        return {"status": "failed", "error": "\n".join(lines[-8:]) or "the process died silently"}
    return found


def _run_here(name: str, setting: Setting) -> Report:
    """One stage in this process."""
    try:
        if name.startswith(_EXPORT):
            make(name.removeprefix(_EXPORT), setting.bundles, tiny=setting.tiny)
            result: Mapping[str, Any] = {}
        else:
            result = STAGES[name].run(setting)
    except NotRun as reason:
        return {"status": "not run", "reason": str(reason)}
    except (Exception, SystemExit) as error:  # noqa: BLE001 a stage's failure is its result
        traceback.print_exc()
        return {"status": "failed", "error": f"{type(error).__name__}: {error}"}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"status": "passed", "result": dict(result), "peak_host_mib": peak}


def _memory_mib() -> int | None:
    """Memory in use on the first GPU, all processes together."""
    found = _nvidia_smi("memory.used")
    return int(float(found.split()[0])) if found else None


def _nvidia_smi(fields: str) -> str | None:
    """The first GPU's fields, or None where nvidia-smi does not answer."""
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits", "--id=0"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _words(report: Report) -> str:
    """A report in one line."""
    if "reason" in report:
        return str(report["reason"])
    if "error" in report:
        return str(report["error"]).splitlines()[-1][:160]
    return json.dumps(report["result"])[:600]


assert set(MAKERS) >= {bundle for stage in STAGES.values() for bundle in stage.needs}

if __name__ == "__main__":
    sys.exit(main())
