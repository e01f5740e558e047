"""The ``Calibrator`` of delta, which is fitted to what tuning adds on clean rows.

It has no published rule, so that ``reference`` uses cross-fitting, as ``loo`` does.
"""

import numpy as np

from layerguard.calibration.calibrator import Calibrator, Fit, Inputs, prompt_groups, row_sources
from layerguard.calibration.delta.estimation import Mode, train
from layerguard.calibration.stages import FittedParameters
from layerguard.calibration.states.blockwise import States
from layerguard.calibration.states.collect import RecordedStates
from layerguard.runtime.bundle.manifest import ADDED_KINDS
from layerguard.runtime.detectors import REGISTRY

_NAME = "delta"


def _applies(inputs: Inputs) -> bool:
    return bool(inputs.clean and inputs.added)


def _prepare(inputs: Inputs) -> Fit:
    options = inputs.options
    mode: Mode = "by-source" if options.mode == "by-source" else "cross-fit"
    layers = np.array([card.layer for card in inputs.added])
    parts = np.array([ADDED_KINDS.index(card.kind) for card in inputs.added])

    def fit(recorded: RecordedStates[States]) -> FittedParameters:
        groups, sources = prompt_groups(recorded), row_sources(recorded)
        fitted = train(
            recorded.states, layers, parts, mode, options.target_fpr, options.seed, groups, sources
        )
        return options.with_reason(fitted)

    return Fit(REGISTRY[_NAME].tap, mode, fit)


DELTA = Calibrator(_NAME, "clean", _applies, _prepare)
