"""The ``Calibrator`` of SIREN, which is fitted to the mean states of labelled rows."""

from layerguard.calibration.calibrator import Calibrator, Fit, Inputs, prompt_groups, row_sources
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
        return train(
            recorded.states,
            labels,
            prompt_groups(recorded),
            eta=options.eta,
            seed=options.seed,
            sources=row_sources(recorded),
        )

    return Fit(REGISTRY[_NAME].tap, "cross-fit", fit)


SIREN = Calibrator(
    _NAME, "labelled", lambda inputs: bool(inputs.labelled), _prepare, probability=True
)
