"""The ``Calibrator`` of familiarity, which is fitted to the mean states of clean rows."""

from layerguard.calibration.calibrator import Calibrator, Fit, Inputs, prompt_groups
from layerguard.calibration.familiarity.estimation import train
from layerguard.calibration.rows.leakage import prompt_group
from layerguard.calibration.rows.traffic import Sources, source_of
from layerguard.calibration.stages import FittedParameters
from layerguard.calibration.states.blockwise import States
from layerguard.calibration.states.collect import RecordedStates
from layerguard.calibration.thresholds.conformal import least_rows
from layerguard.runtime.detectors import REGISTRY

_NAME = "familiarity"


def _applies(inputs: Inputs) -> bool:
    """Whether the clean rows suffice for a threshold at the target."""
    texts = set(map(prompt_group, inputs.clean))
    return bool(texts) and len(texts) >= least_rows(inputs.options.target_fpr)


def _prepare(inputs: Inputs) -> Fit:
    options = inputs.options
    measured = set(Sources.of(inputs.clean).measured)

    def fit(recorded: RecordedStates[States]) -> FittedParameters:
        names = [source_of(recorded.rows[row]) for row in recorded.owner]
        sources = [name if name in measured else None for name in names]
        fitted = train(recorded.states, sources, prompt_groups(recorded), options.seed)
        fitted.settings["on_unfamiliar"] = options.on_unfamiliar
        return fitted

    return Fit(REGISTRY[_NAME].tap, "cross-fit", fit)


FAMILIARITY = Calibrator(_NAME, "clean", _applies, _prepare)
