"""Calibration: fit detectors to rows of text, with the graph that serves later.

Functions for whole bundles; the commands of the same names call them:

    from layerguard.calibration import calibrate, evaluate

    calibration = calibrate("bundle", clean="clean.jsonl", labelled="labelled.jsonl")
    evaluation = evaluate("bundle", "test.jsonl")

calibrate     fit the detectors of a bundle to rows of text, and freeze them into it
recalibrate   set the thresholds of a bundle again, on recent traffic
evaluate      measure a bundle on labelled rows
audit         compare the weights of a tuned model with those of its base
trace         find the layers where a model forms its answers, and its fragile layers
import_siren  freeze a released SIREN head into a bundle

Parameters of one detector, from your own states: ``delta``, ``familiarity``, ``lcf``, ``siren``,
``span``, ``weightwatch`` and ``drift`` each have ``fit``.

    from layerguard.calibration import lcf, siren

    params = lcf.fit(states)            # states: last token, float32 [n, L + 1, hidden]
    params = siren.fit(states, labels)  # states: means over tokens

The package does not need PyTorch: the runtime computes the states.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from layerguard.calibration.artefacts.import_head import ImportedHead, import_siren
    from layerguard.calibration.auditing.audit import Audit, audit
    from layerguard.calibration.evaluation.evaluate import Evaluation, evaluate
    from layerguard.calibration.guard.calibrate import Calibration, calibrate
    from layerguard.calibration.guard.recalibrate import Recalibration, recalibrate
    from layerguard.calibration.layertracer.trace import Trace, trace

__all__ = [
    "Audit", "Calibration", "Evaluation", "ImportedHead", "Recalibration", "Trace",
    "audit", "calibrate", "evaluate", "import_siren", "recalibrate", "trace",
]  # fmt: skip

_MODULES = {
    "artefacts.import_head": ("ImportedHead", "import_siren"),
    "auditing.audit": ("Audit", "audit"),
    "evaluation.evaluate": ("Evaluation", "evaluate"),
    "guard.calibrate": ("Calibration", "calibrate"),
    "guard.recalibrate": ("Recalibration", "recalibrate"),
    "layertracer.trace": ("Trace", "trace"),
}


def __getattr__(name: str) -> object:
    """Import a public name on first use, because importing scikit-learn takes a second."""
    for module, names in _MODULES.items():
        if name in names:
            value: object = getattr(import_module(f"{__name__}.{module}"), name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
