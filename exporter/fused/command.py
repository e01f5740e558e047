"""Fuses a bundle; ``arguments.py`` describes the command."""

import re
import textwrap
from argparse import Namespace
from collections.abc import Iterable

from layerguard.exporter.fused.pipeline import fuse
from layerguard.runtime.bundle.files import SIGNATURE
from layerguard.runtime.bundle.fused import FusedCard
from layerguard.runtime.cli import options
from layerguard.runtime.cli.streams import show, show_faults
from layerguard.runtime.rows.jsonl import read_rows


def run(arguments: Namespace) -> int:
    """Fuse and print the proof; 2 if any row was bad."""
    rows = read_rows(arguments.texts)
    requests = [row.request for row in rows.good]
    signed = (arguments.bundle / SIGNATURE).exists()
    options.try_guard(arguments, [arguments.bundle])
    made = fuse(arguments.bundle, requests, device=arguments.device, threads=arguments.threads)
    for card in made.cards.values():
        show(*report(card))
    if signed:
        show(f"removed {SIGNATURE}: `layerguard sign` makes a new one")
    show(f"wrote {arguments.bundle}")
    show_faults("fuse", rows.faults)
    return 2 if rows.faults else 0


def report(card: FusedCard) -> list[str]:
    """Describes a graph's inputs, outputs and proof in lines of text."""
    proof = card.proof
    lines = [
        f"{card.file}: {proof.texts} texts, {proof.flips} flips",
        *_listed("inputs", _shown(card.inputs)),
        *_listed("optional inputs", card.thresholds.values()),
        *_listed("outputs", _shown(card.outputs)),
    ]
    lines += [
        f"  {name}: largest difference from the runtime {apart:.2g} (allowed {proof.tolerance:g})"
        for name, apart in proof.largest.items()
    ]
    if card.columns:
        by_column = sorted(card.columns.items(), key=lambda item: item[1])
        listed = ", ".join(f"{name} {column}" for name, column in by_column)
        lines.append(f"  rows[text, column] is the row that a detector reads; columns: {listed}")
    if "roles" in card.inputs:
        lines.append("  roles is the author of each token: 0 system, 1 user, 2 assistant, 3 tool")
    if card.states:
        lines.append("  past_... of a state is the output of the previous run, zeros at first")
    return lines


def _listed(what: str, names: Iterable[str]) -> list[str]:
    text = f"{what}: {', '.join(names)}"
    return textwrap.wrap(text, 100, initial_indent="  ", subsequent_indent="    ")


def _shown(names: Iterable[str]) -> list[str]:
    """Names; those that differ only in a number are joined: ``past_key_00`` as ``past_key_*``."""
    return list(dict.fromkeys(re.sub(r"_\d\d+$", "_*", name) for name in names))
