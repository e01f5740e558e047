"""Move the thresholds of a bundle to what its traffic has become; nothing else changes.

--shadow rows, recent traffic that is taken to be clean, are scored by the detectors as they serve,
and all thresholds are set anew on those scores, for all traffic and for each domain. Rows of label
1 are left out and counted, and so are texts that the detectors were fitted on. Bring traffic as it
comes: leaving out what the guard flagged would make it flag the same share of the rest.

A bad row is reported with its line; the others are used, and the exit code is then 2.
"""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from layerguard.calibration.commands.summary import decision_lines, dropped_lines
from layerguard.calibration.decision import Policy, settle
from layerguard.calibration.fingerprint import text_hashes
from layerguard.calibration.freeze import freeze
from layerguard.calibration.leakage import prompt_group
from layerguard.calibration.scoring import score_columns
from layerguard.calibration.together import seen_texts
from layerguard.runtime.binding import bind_detectors
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.bundle.decision import DecisionCard
from layerguard.runtime.cli import options
from layerguard.runtime.guard import Guard
from layerguard.runtime.rows.jsonl import Row, read_rows


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    options.add_written_bundle(parser)
    add = parser.add_argument
    add(
        "--shadow",
        type=Path,
        nargs="+",
        required=True,
        metavar="ROWS",
        help="recent traffic, taken to be clean",
    )
    add(
        "--target-fpr",
        type=float,
        metavar="SHARE",
        help="share of it that the whole guard may flag (default: the bundle's own target)",
    )
    options.add_session(parser)


def run(arguments: Namespace) -> int:
    """Score, set thresholds, freeze and say what moved; 2 if any row was bad."""
    guard = Guard.load(arguments.bundle, device=arguments.device, threads=arguments.threads)
    bundle = guard.bundle
    before = bundle.manifest
    found = read_rows(arguments.shadow)
    faults = list(found.faults)
    rows = _unseen(found.good, set(seen_texts(bundle).tolist()))
    asked = len({prompt_group(row) for row in rows})
    policy = _policy(guard, arguments.target_fpr)
    policy.check_support(asked, before.detectors)

    columns = score_columns(guard.backbone, bind_detectors(bundle), rows, faults)
    settled = settle(columns, rows, bundle.params, policy, seen=seen_texts(bundle))
    dropped = dropped_lines(bundle)
    after = freeze(bundle, guard.backbone, [], settled)
    for name, card in after.detectors.items():
        print(f"{name}: threshold {before.detectors[name].threshold:.4g} -> {card.threshold:.4g}")
    print("\n".join([*decision_lines(settled.card, asked), *dropped]))
    lost = _own_domains(before.decision) - _own_domains(settled.card)
    if lost:
        print(f"    thresholds of {', '.join(sorted(lost))} fell away: too few rows of that domain")
    print(f"wrote {arguments.bundle} (id {Bundle.load(arguments.bundle).id})")
    for fault in faults:
        print(f"layerguard recalibrate: {fault}", file=sys.stderr)
    return 2 if faults else 0


def _own_domains(card: DecisionCard | None) -> set[str]:
    """The domains that have thresholds of their own."""
    return {name for name, own in card.domains.items() if own.thresholds} if card else set()


def _unseen(rows: tuple[Row, ...], seen: set[int]) -> list[Row]:
    """The rows that may set thresholds; says how many may not."""
    clean = [row for row in rows if row.label != 1]
    codes = text_hashes(map(prompt_group, clean)).tolist()
    kept = [row for row, code in zip(clean, codes, strict=True) if code not in seen]
    if len(clean) < len(rows):
        print(f"left out {len(rows) - len(clean)} of {len(rows)} rows: label 1, not clean")
    if len(kept) < len(clean):
        fitted = len(clean) - len(kept)
        print(f"left out {fitted} of {len(rows)} rows: a detector was fitted on their text")
    return kept


def _policy(guard: Guard, target_fpr: float | None) -> Policy:
    """Who decides as before, at the target asked for, or the bundle's own."""
    card, detectors = guard.bundle.manifest.decision, guard.bundle.manifest.detectors
    if card is None:  # each detector had a target of its own: the strictest is the guard's
        own = min(detector.target_fpr for detector in detectors.values())
        return Policy("any", (), own if target_fpr is None else target_fpr)
    target = card.target_fpr if target_fpr is None else target_fpr
    return Policy(card.policy, card.shadow, target)
