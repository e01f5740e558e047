"""The ``Calibrator`` of WeightWatch, which is fitted to the extreme cosines of clean rows."""

from layerguard.calibration.calibrator import Calibrator, Fit, Inputs, prompt_groups, row_sources
from layerguard.calibration.stages import FittedParameters
from layerguard.calibration.states.blockwise import States
from layerguard.calibration.states.collect import RecordedStates
from layerguard.calibration.weightwatch.directions import PUBLISHED_DROP, directions, watching
from layerguard.calibration.weightwatch.estimation import Mode, train
from layerguard.runtime.errors import InputError


def _applies(inputs: Inputs) -> bool:
    if inputs.tuning is not None and not inputs.clean:
        raise InputError(
            "found no --clean; expected clean rows, because they calibrate WeightWatch"
        )
    return inputs.tuning is not None


def _prepare(inputs: Inputs) -> Fit:
    options, model = inputs.options, inputs.model
    mode: Mode = "cross-fit" if options.mode == "loo" else options.mode
    drop = PUBLISHED_DROP if mode == "reference" else 0
    assert inputs.tuning is not None
    watched = directions(inputs.tuning, model.total_layers, drop=drop, kept=model.layers)

    def fit(recorded: RecordedStates[States]) -> FittedParameters:
        groups, sources = prompt_groups(recorded), row_sources(recorded)
        fitted = train(
            recorded.states, watched, mode, options.target_fpr, options.seed, groups, sources
        )
        return options.with_reason(fitted)

    return Fit(watching(watched), mode, fit)


WEIGHTWATCH = Calibrator("weightwatch", "clean", _applies, _prepare)
