"""Runs the toy detector through all steps, from calibration to the fused graph."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from layerguard.calibration import calibrate
from layerguard.exporter.fused.pipeline import fuse
from layerguard.runtime import Bundle, Guard
from layerguard.runtime.bundle.npz import write_npz
from layerguard.runtime.kernels import parameters
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.text.request import request
from layerguard.runtime.types import Array, Tap
from tests import tiny_decoder
from tests.c_guard import CGuard
from tests.fused.bundles import FRESH, expected, fed, load, texts
from tests.fused.graphs import agree, run
from tests.toy import detector

TARGET_FPR = 0.3
_CLEAN = texts(60, 7)


def main(folder: str) -> None:
    """Run every step, and print its name when it is done."""
    detector.register()
    path = Path(folder) / "bundle"
    params = _calibrate(path)
    guard = _load(path)
    _check(guard, params)
    _stream(guard)
    _serve_from_c(guard, Path(folder), params)
    _fuse(path)


def _calibrate(path: Path) -> Mapping[str, Array]:
    """One call fits the toy and LCF and freezes both, with thresholds for one target."""
    tiny_decoder.make_bundle(path, {})
    rows = [Row(text, request(text)) for text in _CLEAN]
    result = calibrate(path, clean=rows, target_fpr=TARGET_FPR, threads=1)
    assert list(result.detectors) == ["familiarity", "lcf", "toy"]
    assert result.detectors["toy"].method == "toy"
    assert [item.name for item in parameters("toy")][:2] == ["layer", "centre"]
    print("calibrate")
    bundle = Bundle.load(path)
    params = bundle.params["toy"]
    deciding = [result.decision.detectors.index(name) for name in result.decision.enforced]
    flagged = bundle.decision["scores"][:, deciding] > [
        float(bundle.params[name]["threshold"]) for name in result.decision.enforced
    ]
    assert 0 < flagged.any(axis=1).mean() <= TARGET_FPR
    print("freeze")
    return params


def _last_states(guard: Guard, some: list[str]) -> Array:
    """float32 [n, L + 1, hidden]."""
    tap = Tap("prompt", "last")
    pooled = guard.backbone.read([request(text) for text in some], {tap})
    return np.stack(pooled.layers[tap.group], axis=1)


def _load(path: Path) -> Guard:
    """Valid parameters load; a fault is reported as the table declares it."""
    guard = load(path)
    bundle = guard.bundle
    broken = {**bundle.params["toy"], "centre": bundle.params["toy"]["centre"][1:]}
    width = bundle.manifest.model.width
    faults = detector.KIND.faults(broken, bundle.manifest.model.layers, width)
    expected_fault = f"toy/centre is float32 [{width - 1}]; expected float32 [{width}]"
    assert faults == [f"{expected_fault}; calibrate again"], faults
    print("load")
    return guard


def _check(guard: Guard, params: Mapping[str, Array]) -> None:
    """The score equals the formula; flags on both sides of the threshold, and evidence."""
    states = _last_states(guard, FRESH)
    scores = np.abs(states[:, detector.LAYER] - params["centre"]).mean(axis=1)
    flags = set()
    for text, wanted in zip(FRESH, scores, strict=True):
        reading = guard.check(text).readings["toy"]
        assert abs(reading.score - wanted) < 1e-5
        assert reading.flagged == (reading.score > params["threshold"])
        assert [(e.layer, e.measure) for e in reading.evidence] == [(detector.LAYER, "distance")]
        flags.add(reading.flagged)
    assert flags == {True, False}
    print("check")


def _stream(guard: Guard) -> None:
    """A stream's verdict has the toy's reading of the prompt."""
    with guard.stream(prompt=FRESH[0]) as stream:
        verdict = stream.push("small boats lay still")
    whole = guard.check(prompt=FRESH[0], response="small boats lay still")
    assert abs(verdict.readings["toy"].score - whole.readings["toy"].score) < 1e-4
    print("stream")


def _serve_from_c(guard: Guard, folder: Path, params: Mapping[str, Array]) -> None:
    """lg_open, lg_score and a stream, with only the archive, as a C program calls them."""
    write_npz(folder / "toy.npz", {f"toy/{name}": value for name, value in params.items()})
    c_guard = CGuard(folder / "toy.npz")
    layers, width = guard.bundle.manifest.model.layers, guard.bundle.manifest.model.width
    for dtype in ("float32", "float16"):
        rng = np.random.default_rng(3)
        states = list(rng.normal(size=(layers + 1, 7, width)).astype(dtype))
        wanted = float(
            np.abs(states[detector.LAYER][-1].astype(np.float64) - params["centre"]).mean()
        )
        found = c_guard.score(states)["toy"]
        assert abs(found.score - wanted) < 1e-6
        assert (found.layer, found.evidence) == (detector.LAYER, found.score)
        stream = c_guard.stream()
        stream.push([layer[:3] for layer in states])
        stream.push([layer[3:] for layer in states])
        assert stream.read()["toy"] == found
    print("C")


def _fuse(path: Path) -> None:
    """The fused graph gives the runtime's scores."""
    fuse(path, threads=1)
    guard = load(path)
    agree(run(path, fed(guard, FRESH)), expected(guard, FRESH))
    print("fuse")
