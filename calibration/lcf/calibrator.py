"""The ``Calibrator`` of LCF, which is fitted to the last-token states of clean rows."""

from layerguard.calibration.calibrator import Calibrator, Fit, Inputs, prompt_groups, row_sources
from layerguard.calibration.lcf.estimation import train
from layerguard.calibration.stages import FittedParameters
from layerguard.calibration.states.blockwise import States
from layerguard.calibration.states.collect import RecordedStates
from layerguard.runtime.detectors import REGISTRY

_NAME = "lcf"


def _prepare(inputs: Inputs) -> Fit:
    options = inputs.options

    def fit(recorded: RecordedStates[States]) -> FittedParameters:
        groups, sources = prompt_groups(recorded), row_sources(recorded)
        fitted = train(
            recorded.states, options.mode, options.target_fpr, options.seed, groups, sources
        )
        return options.with_reason(fitted)

    return Fit(REGISTRY[_NAME].tap, options.mode, fit)


LCF = Calibrator(_NAME, "clean", lambda inputs: bool(inputs.clean), _prepare)
