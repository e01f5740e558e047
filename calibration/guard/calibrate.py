"""Fit the detectors of a bundle to rows of text and freeze them into it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from layerguard.calibration.calibrator import Inputs, Options
from layerguard.calibration.defaults import DEFAULT_MAX_SHIFT, DEFAULT_TARGET_FPR, Mode
from layerguard.calibration.guard.fit_detectors import detectors_to_fit, fit_detectors
from layerguard.calibration.guard.freeze import freeze
from layerguard.calibration.guard.mode import chosen_mode
from layerguard.calibration.guard.removed import removed_by_a_change
from layerguard.calibration.guard.scored import ScoredDetectors, rule_of
from layerguard.calibration.notify import Notify, silent
from layerguard.calibration.rows.insertion import with_payloads
from layerguard.calibration.rows.labelled import LabelledRows, read_clean, read_labelled
from layerguard.calibration.rows.leakage import TestTexts, prompt_group
from layerguard.calibration.rows.sources import RowSources, read_sources
from layerguard.calibration.states.passes import Pass, read_once
from layerguard.calibration.thresholds.guard_thresholds import (
    GuardThresholds,
    Policy,
    set_thresholds,
)
from layerguard.calibration.thresholds.kept_detectors import KeptDetectors
from layerguard.calibration.weights.tuning import Tuning
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.bundle.decision import DecisionCard
from layerguard.runtime.bundle.manifest import DetectorCard, added_outputs
from layerguard.runtime.bundle.votes import VotesCard
from layerguard.runtime.errors import CalibrationError, InputError
from layerguard.runtime.model.backbone import Backbone
from layerguard.runtime.model.session import Device
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.types import OnUnfamiliar

LEAST_WINDOW = 8
"""Fewest tokens of a window; the manifest allows no smaller budget."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The result of a calibration.

    Attributes:
        bundle: folder of the bundle.
        bundle_id: id of the bundle after the change.
        detectors: the cards of the fitted detectors, by name.
        decision: the deciding detectors and the promised false-positive rate.
        votes: why each detector decides or not, and what it flags.
        clean_texts: number of given clean texts; ``decision.n`` of them set the thresholds.
        removed: files deleted because they belong to the old detectors: fused graphs, a signature.
        faults: one message for each row that was not used.
    """

    bundle: Path
    bundle_id: str
    detectors: Mapping[str, DetectorCard]
    decision: DecisionCard
    votes: VotesCard
    clean_texts: int
    removed: tuple[str, ...]
    faults: tuple[str, ...]


def calibrate(
    bundle: str | Path,
    *,
    clean: RowSources = (),
    labelled: RowSources = (),
    payloads: RowSources = (),
    tuning: Tuning | None = None,
    test: RowSources = (),
    target_fpr: float = DEFAULT_TARGET_FPR,
    policy: str = "any",
    shadow: Sequence[str] = (),
    enforce: Sequence[str] = (),
    max_shift: float = DEFAULT_MAX_SHIFT,
    mode: Mode | None = None,
    eta: float = 0.9,
    on_unfamiliar: OnUnfamiliar = "allow",
    window: int | None = None,
    seed: int = 0,
    cache: Path | None = None,
    device: Device = "cpu",
    threads: int = 0,
    notify: Notify = silent,
    read: Pass = read_once,
) -> Calibration:
    """Fit the detectors of a bundle and freeze them into it, with thresholds for one target.

    Clean rows calibrate LCF, WeightWatch if ``tuning`` is given, and delta if the graph gives what
    tuning adds; labelled rows train SIREN. Detectors that are not fitted in this call are kept
    unchanged. The thresholds of all detectors are set together on the clean rows, or without clean
    rows on the labelled rows of label 0.

    A detector decides only if the rows give no evidence against it: each source of the rows is left
    out in turn, and a detector that surely flags more than ``max_shift`` times the target of it is
    put in shadow; if none is left, the one with the least shift decides. The modes other than
    ``reference`` apply this rule; all modes measure.

    Args:
        bundle: folder of an exported model.
        clean: files or rows of harmless prompts.
        labelled: files or rows with label 0 or 1.
        payloads: texts to insert into half of the documents among the labelled rows, of which half
            then take forms such as JSON, with or without a payload.
        tuning: weight changes, from ``weights.tuning.between`` or ``adapter_alone``.
        test: test files or rows; rows that share a text with them are left out.
        target_fpr: share of clean traffic that the whole guard may flag, in (0, 1).
        policy: ``any`` or ``all`` of the detectors, or the name of the only one that decides.
        shadow: detectors whose scores are reported but never decide.
        enforce: detectors that decide whatever was measured.
        max_shift: multiple of the target that may be flagged of a source that was left out, 1 or
            more.
        mode: ``cross-fit``; ``by-source``; ``loo``; or ``reference``, the published thresholds.
            None: ``by-source`` if the clean rows name at least four sources of 30 texts or more,
            else ``cross-fit``.
        eta: for SIREN, the share of the probes' weight that the chosen neurons hold, in (0, 1].
        on_unfamiliar: what the guard does with a text that is unlike the clean rows: ``allow``,
            ``flag`` or ``ask``; see ``Verdict.unfamiliar``.
        window: for SIREN, tokens of the overlapping windows that it reads of a text, of which the
            worst counts, so that harmless text around a harmful part does not hide it; None: it
            reads the text as a whole.
        seed: random seed.
        cache: folder of temporary files of states; None for the system's.
        device: where the graph runs; the thresholds fit that device.
        threads: threads of one operator; 0 lets ONNX Runtime choose.
        notify: called with one message for each kind of rows of which some are left out.
        read: runs the graph; ``layerguard.scale.ray`` runs it in other processes.

    Raises:
        InputError: there are no rows, or an argument has an invalid value.
        CalibrationError: the rows do not suffice for the target or a fit. Messages on rows that
            were not used are the error's notes (``__notes__``).
        BundleError: the bundle is invalid.
        MachineError: the disk is too small for the recorded states.
    """
    before = Bundle.load(Path(bundle))
    rows = _Rows.read(clean, labelled, test, notify)
    if payloads:
        rows = rows.with_payloads(payloads, test, seed, notify)
    most = before.manifest.text.max_tokens
    if window is not None and not LEAST_WINDOW <= window <= most:
        raise InputError(f"window: found {window}; expected {LEAST_WINDOW} to {most} tokens")
    if window is not None and not rows.labelled:
        raise InputError("window: found no labelled rows; expected rows to train on, or no window")
    chosen = chosen_mode(mode, rows.clean)
    options = Options(
        chosen.mode, chosen.reason, eta, target_fpr, seed, cache, on_unfamiliar, window
    )
    added = added_outputs(before.manifest.graphs["score"])
    inputs = Inputs(rows.clean, rows.labelled, tuning, before.manifest.model, options, added)
    names = detectors_to_fit(inputs)
    others = before.manifest.detectors.keys() - set(names)
    deciding = Policy.over({*names, *others}, policy, shadow, target_fpr)
    rule = rule_of(deciding, {*names, *others}, enforce, max_shift, chosen.mode)
    kept = KeptDetectors(before, others, rows.for_thresholds)
    if mode != "reference":
        _check_support(kept, rows.for_thresholds, deciding, {*names, *others})

    backbone = Backbone(before, device, threads)
    fitted, faults = fit_detectors(backbone, inputs, kept, read)
    faults = (*rows.faults, *faults)
    scored = ScoredDetectors(before, fitted, kept, rows.for_thresholds)
    try:
        votes = scored.votes(rule)
        failed = [name for name, vote in votes.detectors.items() if not vote.decides]
        thresholds = _thresholds(scored, rows, deciding.without(failed))
    except CalibrationError as error:
        for fault in faults:  # a possible cause
            error.add_note(fault)
        raise
    removed = removed_by_a_change(before)
    votes = scored.measured(votes, thresholds)
    manifest = freeze(before, backbone, fitted, thresholds, votes)
    return Calibration(
        bundle=before.path,
        bundle_id=Bundle.load(before.path).id,
        detectors={name: manifest.detectors[name] for name in sorted(names)},
        decision=thresholds.card,
        votes=votes,
        clean_texts=len(set(map(prompt_group, rows.for_thresholds))),
        removed=removed,
        faults=faults,
    )


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows to calibrate on, and one message for each row that was not used."""

    clean: tuple[Row, ...]
    labelled: tuple[Row, ...]
    faults: tuple[str, ...]

    @classmethod
    def read(
        cls, clean: RowSources, labelled: RowSources, test: RowSources, notify: Notify
    ) -> "_Rows":
        if not clean and not labelled:
            raise InputError("found neither --clean nor --labelled; expected rows to calibrate on")
        tests = TestTexts.read(test)
        none = LabelledRows((), ())
        clean_rows = read_clean(clean) if clean else none
        clean_kept = _without_leaks(clean_rows.rows, tests, "--clean", notify)
        labelled_rows = read_labelled(labelled) if labelled else none
        return cls(
            clean_kept,
            _without_leaks(labelled_rows.rows, tests, "--labelled", notify),
            (*tests.faults, *clean_rows.faults, *labelled_rows.faults),
        )

    def with_payloads(
        self, payloads: RowSources, test: RowSources, seed: int, notify: Notify
    ) -> "_Rows":
        """The rows with payloads, none of them a test text, inserted into labelled documents."""
        read = read_sources(payloads)
        kept = _without_leaks(tuple(read.good), TestTexts.read(test), "--payloads", notify)
        labelled = tuple(with_payloads(self.labelled, kept, seed))
        return replace(self, labelled=labelled, faults=(*self.faults, *read.faults))

    @property
    def for_thresholds(self) -> tuple[Row, ...]:
        """The clean rows, or without clean rows the labelled rows of label 0."""
        return self.clean or tuple(row for row in self.labelled if row.label == 0)


def _without_leaks(
    rows: tuple[Row, ...], tests: TestTexts, option: str, notify: Notify
) -> tuple[Row, ...]:
    """The rows that share no text with the test rows."""
    remaining = tests.without(rows)
    if len(remaining) < len(rows):
        notify(f"dropped {len(rows) - len(remaining)} of {len(rows)} rows of {option}: in --test")
    return remaining


def _check_support(
    kept: KeptDetectors, rows: Sequence[Row], policy: Policy, detectors: Collection[str]
) -> None:
    """Refuse a target for which the clean texts do not suffice, before any state is recorded.

    Raises:
        CalibrationError: too few texts, or too few with scores of the kept detectors; says how
            many have no score, and why.
    """
    texts = set(map(prompt_group, rows))
    policy.check_support(len(texts), detectors)
    scored = kept.texts() if kept.names else texts
    try:
        policy.check_support(len(scored), detectors)
    except CalibrationError as error:
        names = ", ".join(kept.names)
        raise CalibrationError(
            f"{error}. {len(texts) - len(scored)} of {len(texts)} are left out: detectors of the "
            f"bundle were fitted on them, and the earlier calibration of {names} stored no score "
            "of them; calibrate all detectors in one call"
        ) from error


def _thresholds(scored: ScoredDetectors, rows: _Rows, policy: Policy) -> GuardThresholds:
    """Set the thresholds of the newly fitted and of the kept detectors."""
    kept = scored.kept
    fitted_on = kept.hashes.of(map(prompt_group, (*rows.clean, *rows.labelled)))
    return set_thresholds(
        scored.clean,
        rows.for_thresholds,
        policy,
        fixed=scored.published.keys(),
        held_out_sources=scored.held_out_sources,
        seen=np.append(kept.seen, fitted_on),
        hashes=kept.hashes,
    )
