"""The registry of calibrators: one entry for each detector, and no other list."""

import ast
from pathlib import Path

import numpy as np
import pytest

import layerguard.calibration
from layerguard.calibration import calibrate
from layerguard.calibration.calibrator import Calibrator, Fit, Inputs
from layerguard.calibration.lcf.calibrator import LCF
from layerguard.calibration.registry import CALIBRATORS
from layerguard.calibration.rows.labelled import labels_of
from layerguard.calibration.stages import FittedParameters
from layerguard.calibration.states.blockwise import States
from layerguard.calibration.states.collect import RecordedStates
from layerguard.runtime import Bundle, Guard
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.text.request import request
from tests.calibration.synthetic import sentences
from tests.tiny import make_bundle

PACKAGE = Path(next(iter(layerguard.calibration.__path__)))
NAMES = {calibrator.name for calibrator in CALIBRATORS}


def strings(source: str) -> set[str]:
    """The string constants of a module."""
    return {
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_every_entry_is_a_detector_that_can_serve() -> None:
    """Every entry has a unique name and a package of that name."""
    assert len(NAMES) == len(CALIBRATORS)
    assert REGISTRY.keys() >= NAMES
    assert all((PACKAGE / name / "calibrator.py").is_file() for name in NAMES)


def test_no_module_outside_its_package_names_a_detector() -> None:
    """A new detector needs only a package and a line in the registry."""
    modules = [
        path
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).parts[0] not in NAMES
    ]
    assert len(modules) > 50
    named = {str(path): strings(path.read_text(encoding="utf-8")) & NAMES for path in modules}
    assert {path: names for path, names in named.items() if names} == {}


def mean_difference(recorded: RecordedStates[States]) -> FittedParameters:
    """A toy as Agent-SIREN: the last state projected on the difference of the label means."""
    states = recorded.states.layer(recorded.states.shape[1] - 1)
    labels = labels_of(recorded.rows)[recorded.owner]
    centre = states.mean(axis=0)
    direction = states[labels == 1].mean(axis=0) - states[labels == 0].mean(axis=0)
    width = len(direction)
    params = {
        "layers": np.array([recorded.states.shape[1] - 1], np.int32),
        "neuron_offsets": np.array([0, width], np.int32),
        "neurons": np.arange(width, dtype=np.int32),
        "alpha": np.ones(1, np.float32),
        "weight_0": np.stack([np.zeros(width), direction]).astype(np.float32),
        "bias_0": np.array([0, -centre @ direction], np.float32),
    }
    scores = 1 / (1 + np.exp(-((states - centre) @ direction).astype(np.float64)))
    return FittedParameters(params, scores, {"rows": len(states)})


def prepare(inputs: Inputs) -> Fit:
    """The toy's fit to Agent-SIREN's tap."""
    assert inputs.labelled
    return Fit(REGISTRY["agent_siren"].tap, "toy", mean_difference)


def test_a_calibrator_is_all_that_calibrate_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One entry: the toy is fitted beside LCF, frozen, loaded, served, and given its threshold."""
    toy = Calibrator("agent_siren", "labelled", lambda inputs: bool(inputs.labelled), prepare)
    monkeypatch.setattr("layerguard.calibration.guard.fit_detectors.CALIBRATORS", (LCF, toy))
    chat = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    bundle = make_bundle(tmp_path / "bundle", {}, chat_template=chat)
    clean = [Row(text, request(text)) for text in sentences(40, seed=0)]
    labelled = [Row(text, request(text), label=i % 2) for i, text in enumerate(sentences(30, 1))]
    result = calibrate(bundle, clean=clean, labelled=labelled, target_fpr=0.1, threads=1)
    assert list(result.detectors) == ["agent_siren", "lcf"]
    card = result.detectors["agent_siren"]
    assert (card.method, card.n, card.settings) == ("toy", 30, {"rows": 30})
    assert (result.decision.detectors, result.decision.n) == (("agent_siren", "lcf"), 40)
    scores = Bundle.load(bundle).decision["scores"]
    thresholds = [result.detectors[name].threshold for name in result.decision.detectors]
    assert 0 < (scores > thresholds).any(axis=1).mean() <= 0.1
    served = Guard.load(bundle, threads=1).check(clean[3].request.prompt).readings["agent_siren"]
    assert served.score == pytest.approx(scores[3, 0], rel=1e-6)
    assert served.threshold == card.threshold
