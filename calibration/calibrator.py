"""The ``Calibrator`` of a detector: its kind of rows, its tap and its fit, for ``calibrate``.

Each detector's package has one ``Calibrator``; ``registry.py`` lists all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from layerguard.calibration.defaults import DEFAULT_TARGET_FPR, Mode
from layerguard.calibration.rows.leakage import prompt_group
from layerguard.calibration.rows.traffic import source_of
from layerguard.calibration.stages import FittedParameters
from layerguard.calibration.states.blockwise import States
from layerguard.calibration.states.collect import RecordedStates
from layerguard.calibration.weights.tuning import Tuning
from layerguard.runtime.bundle.manifest import ModelCard, OutputCard
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.text.tokens import TokenReader
from layerguard.runtime.types import Array, OnUnfamiliar, Tap

RowKind = Literal["clean", "labelled"]

METHOD_REASON = "method_reason"
"""The setting of a detector's card that says why its thresholds are set by this method."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a calibration.

    Attributes:
        mode: how thresholds are set.
        mode_reason: why, if the user did not choose it.
        eta: for SIREN, the share of the probes' weight that the chosen neurons hold, in (0, 1].
        target_fpr: share of clean traffic that may be flagged.
        seed: random seed.
        cache: folder of temporary files of states; None for the system's.
        on_unfamiliar: what the guard does with a text unlike the calibration rows.
        window: for SIREN, the tokens of a window; None: the whole text is one.
    """

    mode: Mode = "cross-fit"
    mode_reason: str = ""
    eta: float = 0.9
    target_fpr: float = DEFAULT_TARGET_FPR
    seed: int = 0
    cache: Path | None = None
    on_unfamiliar: OnUnfamiliar = "allow"
    window: int | None = None

    def with_reason(self, fitted: FittedParameters) -> FittedParameters:
        """``fitted``, whose settings say why its mode was used, if the user did not choose it."""
        if not self.mode_reason:
            return fitted
        return replace(fitted, settings={**fitted.settings, METHOD_REASON: self.mode_reason})


@dataclass(frozen=True, slots=True)
class Inputs:
    """The data that detectors are fitted to.

    Attributes:
        clean: clean rows; may be empty.
        labelled: labelled rows; may be empty.
        tuning: weight changes of the model, or None.
        model: model card of the bundle.
        options: options of the calibration.
        added: outputs of the bundle's score graph that give what tuning adds, by block and part.
        reader: tokenizer of the bundle; set when the fits are prepared.
    """

    clean: Sequence[Row]
    labelled: Sequence[Row]
    tuning: Tuning | None
    model: ModelCard
    options: Options
    added: Sequence[OutputCard] = ()
    reader: TokenReader | None = None

    def rows(self, kind: RowKind) -> Sequence[Row]:
        """The rows of one kind."""
        return self.clean if kind == "clean" else self.labelled


@dataclass(frozen=True, slots=True)
class Fit:
    """A prepared fit.

    Attributes:
        tap: the states of each row that it reads.
        method: how thresholds are set, for the manifest.
        fit: maps recorded states to parameters and held-out scores.
        score: maps parameters and recorded states to the score of each window, float64 [windows];
            None if the detector itself reads what is recorded.
    """

    tap: Tap
    method: str
    fit: Callable[[RecordedStates[States]], FittedParameters]
    score: Callable[[Mapping[str, Array], States], Array] | None = None


@dataclass(frozen=True, slots=True)
class Calibrator:
    """How ``calibrate`` fits one detector.

    Attributes:
        name: name of the detector in the runtime's registry.
        rows: kind of the rows it is fitted to.
        applies: whether the detector is fitted to the given inputs.
        prepare: returns the fit to the given inputs.
        probability: whether its score is a probability of harm.
    """

    name: str
    rows: RowKind
    applies: Callable[[Inputs], bool]
    prepare: Callable[[Inputs], Fit]
    probability: bool = False


def prompt_groups(recorded: RecordedStates[States]) -> list[str]:
    """The group of each recorded window for the folds: the prompt of its row."""
    return [prompt_group(recorded.rows[row]) for row in recorded.owner]


def row_sources(recorded: RecordedStates[States]) -> list[str]:
    """The source of each recorded window; rows that name none share one."""
    return [source_of(recorded.rows[row]) or "" for row in recorded.owner]
