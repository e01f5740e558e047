"""The fused graph against the runtime: the same texts, each alone and all of them together."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from layerguard.exporter.fused.graph import Design
from layerguard.runtime.bundle.fused import FusedProof
from layerguard.runtime.errors import ExportError
from layerguard.runtime.guard import Guard
from layerguard.runtime.session import Session
from layerguard.runtime.text.request import Request
from layerguard.runtime.text.tokens import Ids
from layerguard.runtime.types import Array, Verdict

TOLERANCE = 1e-5
"""Of |graph - runtime| / (1 + |runtime|): both run the same backbone and differ in the order in
which float32 sums are added."""

_AT_ONCE = 8
_Row = tuple[Ids, bytes | None]


def feeds(guard: Guard, design: Design, requests: Sequence[Request]) -> dict[str, Array] | None:
    """What the fused graph takes of some texts; None where one is read in several windows.

    Args:
        guard: of the bundle.
        design: of the fused graph.
        requests: the texts.

    Returns:
        ``input_ids``, ``attention_mask``, and ``rows`` and ``roles`` where the graph asks for them.
    """
    rows: list[_Row] = []
    places: list[list[int]] = []
    for request in requests:
        found = guard.backbone.reader.read_sources(request, design.sources)
        places.append([])
        for source in design.sources:
            windows = found[source]
            if len(windows.windows) != 1:
                return None
            places[-1].append(len(rows))
            rows.append((windows.windows[0], windows.roles[0] if windows.roles else None))
    longest = max(len(ids) for ids, _ in rows)
    pad = design.bundle.manifest.text.pad_token_id
    given = {
        "input_ids": np.full((len(rows), longest), pad, np.int64),
        "attention_mask": np.zeros((len(rows), longest), np.int64),
        "roles": np.ones((len(rows), longest), np.int64),
    }
    for i, (ids, roles) in enumerate(rows):
        given["input_ids"][i, : len(ids)] = ids
        given["attention_mask"][i, : len(ids)] = 1
        if roles is not None:
            given["roles"][i, : len(ids)] = np.frombuffer(roles, np.uint8)
    if not design.reads_roles:
        del given["roles"]
    if design.columns:
        given["rows"] = np.array(places, np.int64)
    return given


def prove(graph: Path, design: Design, guard: Guard, requests: Sequence[Request]) -> FusedProof:
    """Run both on the texts.

    Args:
        graph: the fused graph, beside the bundle's weights.
        design: what it was made of.
        guard: of the same bundle.
        requests: the texts; those read in several windows are left out.

    Raises:
        ExportError: a score differs by more than the tolerance, or a verdict does.
        BundleError: ONNX Runtime does not take the graph.
    """
    session = Session(graph, guard.backbone.session.device, guard.backbone.session.threads)
    names = list(design.detectors)
    outputs = [*(f"{name}_score" for name in names), "flagged"]
    largest = dict.fromkeys(names, 0.0)
    usable = [one for one in requests if feeds(guard, design, [one]) is not None]
    if not usable:
        raise ExportError(
            "every text is read in several windows; expected shorter ones to prove on"
        )
    flips = 0
    for batch in _batches(design, usable):
        verdicts = guard.check_requests(batch, counted=False)
        given = feeds(guard, design, batch)
        assert given is not None
        *scores, flagged = session.run(outputs, given)
        for name, column in zip(names, scores, strict=True):
            apart = _apart(column, [verdict.readings[name].score for verdict in verdicts])
            largest[name] = float(np.maximum(largest[name], apart))
        flips += _flips(flagged, verdicts)
    proof = FusedProof(TOLERANCE, len(usable), flips, largest)
    _check(proof)
    return proof


def _batches(design: Design, requests: Sequence[Request]) -> Iterator[Sequence[Request]]:
    """Each text alone; then several at once, except where rows depend on each other (int8)."""
    yield from ([one] for one in requests)
    if design.bundle.manifest.model.dtype == "int8":
        return
    for start in range(0, len(requests), _AT_ONCE):
        yield requests[start : start + _AT_ONCE]


def _apart(found: Array, expected: Sequence[float]) -> float:
    """The largest relative difference; 0 of two scores that are both not finite."""
    theirs = np.array(expected)
    both = ~np.isfinite(found) & ~np.isfinite(theirs)
    with np.errstate(invalid="ignore"):
        apart = np.abs(found - theirs) / (1 + np.abs(theirs))
    return float(np.where(both, 0, apart).max())


def _flips(flagged: Array, verdicts: Sequence[Verdict]) -> int:
    return sum(
        mine != verdict.flagged for mine, verdict in zip(flagged.tolist(), verdicts, strict=True)
    )


def _check(proof: FusedProof) -> None:
    beyond: Mapping[str, float] = {
        name: apart for name, apart in proof.largest.items() if not apart <= proof.tolerance
    }
    if beyond or proof.flips:
        listed = ", ".join(f"{name} by {apart:.3g}" for name, apart in beyond.items())
        raise ExportError(
            f"the fused graph is not the guard: over {proof.texts} texts scores differ "
            f"({listed or 'within the tolerance'}) and {proof.flips} verdicts do; expected at most "
            f"{proof.tolerance:g} and none. Nothing was written; serve this bundle with the "
            "runtime, and report the model"
        )
