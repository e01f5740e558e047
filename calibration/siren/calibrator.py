"""The ``Calibrator`` of SIREN, which is fitted to the mean states of labelled rows."""

from layerguard.calibration.calibrator import Calibrator, Fit, Inputs, prompt_groups
from layerguard.calibration.rows.labelled import labels_of
from layerguard.calibration.siren.training import train
from layerguard.calibration.stages import FittedParameters
from layerguard.calibration.states.blockwise import States
from layerguard.calibration.states.collect import RecordedStates
from layerguard.runtime.detectors import REGISTRY

_NAME = "siren"


def _prepare(inputs: Inputs) -> Fit:
    options = inputs.options

    def fit(recorded: RecordedStates[States]) -> FittedParameters:
        labels = labels_of(recorded.rows)[recorded.owner]
        groups = prompt_groups(recorded)
        return train(recorded.states, labels, groups, eta=options.eta, seed=options.seed)

    return Fit(REGISTRY[_NAME].tap, "cross-fit", fit)


SIREN = Calibrator(
    _NAME, "labelled", lambda inputs: bool(inputs.labelled), _prepare, probability=True
)
