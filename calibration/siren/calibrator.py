"""The ``Calibrator`` of SIREN, which is fitted to the mean states of labelled rows."""

from dataclasses import replace

from layerguard.calibration.calibrator import Calibrator, Fit, Inputs, prompt_groups
from layerguard.calibration.rows.labelled import labels_of
from layerguard.calibration.siren.training import train
from layerguard.calibration.stages import FittedParameters
from layerguard.calibration.states.blockwise import States
from layerguard.calibration.states.collect import RecordedStates
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.types import TokenBudget

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
            sources=_sources(recorded),
        )

    tap = REGISTRY[_NAME].tap
    if options.window is not None:
        tap = replace(tap, budget=TokenBudget("sliding", options.window))
    return Fit(tap, "cross-fit", fit)


def _sources(recorded: RecordedStates[States]) -> list[str] | None:
    """The ``source`` of each recorded window; None if no row has one.

    A ``domain`` does not count: it is often the kind of harm, of which every fold needs some.
    """
    if not any(row.source for row in recorded.rows):
        return None
    return [recorded.rows[row].source or "" for row in recorded.owner]


SIREN = Calibrator(
    _NAME, "labelled", lambda inputs: bool(inputs.labelled), _prepare, probability=True
)
