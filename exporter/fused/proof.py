"""The fused graph against the runtime: the same texts, each alone and all of them together."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from layerguard.exporter.fused.graph import Design
from layerguard.runtime.bundle.fused import FusedProof
from layerguard.runtime.errors import ExportError
from layerguard.runtime.guard import Guard
from layerguard.runtime.model.session import Session
from layerguard.runtime.text.request import Request
from layerguard.runtime.text.tokens import Ids
from layerguard.runtime.types import Array, Verdict

TOLERANCES: dict[str, float] = {"float32": 1e-5, "int8": 1e-5, "float16": 2e-3}
"""By the backbone's dtype, of |graph - runtime| / (1 + |runtime|): both run the same backbone and
differ in the order in which float32 sums are added. In float16 a state that is no output of the
fused graph may skip a rounding to half precision, 2**-11 of it."""

_AT_ONCE = 8
_LONGEST_CHUNK = 7
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
    """Run graph and runtime on the texts, each alone and several at once.

    Args:
        graph: the fused graph, beside the bundle's weights.
        design: what it was made of.
        guard: of the same bundle.
        requests: the texts; those read in several windows are left out.

    Raises:
        ExportError: a score differs by more than the tolerance, or a verdict does.
        BundleError: ONNX Runtime does not take the graph.
    """
    session = _session(graph, guard)
    usable = _usable(guard, design, requests)
    found = _Found(design)
    for batch in _batches(design, usable):
        given = feeds(guard, design, batch)
        assert given is not None
        found.add(session.run(found.outputs, given), guard, batch)
    return found.proof(len(usable))


def prove_growing(
    graph: Path, design: Design, guard: Guard, requests: Sequence[Request]
) -> FusedProof:
    """The same of the graph that continues a text, over texts in chunks; see ``prove``."""
    session = _session(graph, guard)
    usable = _usable(guard, design, requests)
    found = _Found(design)
    for place, one in enumerate(usable):
        given = feeds(guard, design, [one])
        assert given is not None
        growing = Growing(session, given)
        for answer in growing.chunks(1 + place % _LONGEST_CHUNK):
            last = answer
        found.add([last[name] for name in found.outputs], guard, [one])
    return found.proof(len(usable))


class Growing:
    """A caller of the graph that continues a text: it keeps the cache and the states."""

    def __init__(self, session: Session, given: Mapping[str, Array]) -> None:
        """Start with nothing read of what ``feeds`` gave."""
        self._session, self._given = session, given
        self._names = [name for name in session.inputs if not name.endswith("_threshold")]
        self._outputs = list(session.outputs)
        self._past = {name: self._zeros(name) for name in self._names if name not in given}

    def chunks(self, size: int) -> Iterator[dict[str, Array]]:
        """All outputs after each further chunk of so many tokens."""
        tokens = self._given["input_ids"].shape[1]
        for start in range(0, tokens, size):
            end = min(start + size, tokens)
            now = dict(self._past)
            for name, array in self._given.items():
                now[name] = array[:, start:end] if name in ("input_ids", "roles") else array
            now["attention_mask"] = self._given["attention_mask"][:, :end]
            answer = dict(zip(self._outputs, self._session.run(self._outputs, now), strict=True))
            for name in self._past:
                self._past[name] = self._next(name, answer)
            yield answer

    def _next(self, name: str, answer: Mapping[str, Array]) -> Array:
        """What is fed as ``past_...`` next: caches grow by what is new, states are replaced."""
        new = answer.get(name.removeprefix("past_"))
        if new is None:
            return self._past[name]
        if name.startswith(("past_key_", "past_value_")):
            return np.concatenate([self._past[name], new], axis=2)
        return new

    def _zeros(self, name: str) -> Array:
        """No past: a cache of no tokens, states of zeros, no steering."""
        dtype, sides = self._session.input_type(name)
        rows = len(self._given["input_ids"])
        if name == "steering":
            return np.zeros([1 if side is None else side for side in sides], dtype)
        free = iter((rows, 0))  # of a cache the rows, then its tokens
        return np.zeros([next(free) if side is None else side for side in sides], dtype)


class _Found:
    """How far a graph is from the runtime, so far."""

    def __init__(self, design: Design) -> None:
        self._names = list(design.detectors)
        self._tolerance = TOLERANCES[design.bundle.manifest.model.dtype]
        self.outputs = [*(f"{name}_score" for name in self._names), "flagged"]
        self._largest = dict.fromkeys(self._names, 0.0)
        self._flips = 0

    def add(self, values: Sequence[Array], guard: Guard, batch: Sequence[Request]) -> None:
        """Take in the graph's outputs on some texts."""
        verdicts = guard.check_requests(batch, counted=False)
        *scores, flagged = values
        for name, column in zip(self._names, scores, strict=True):
            apart = _apart(column, [verdict.readings[name].score for verdict in verdicts])
            self._largest[name] = float(np.maximum(self._largest[name], apart))
        self._flips += _flips(flagged, verdicts)

    def proof(self, texts: int) -> FusedProof:
        """What was found, where it is good enough."""
        proof = FusedProof(self._tolerance, texts, self._flips, self._largest)
        _check(proof)
        return proof


def _session(graph: Path, guard: Guard) -> Session:
    served = guard.backbone.session
    return Session(graph, served.device, served.threads)


def _usable(guard: Guard, design: Design, requests: Sequence[Request]) -> list[Request]:
    usable = [one for one in requests if feeds(guard, design, [one]) is not None]
    if not usable:
        raise ExportError("every text is read in several windows; expected shorter ones")
    return usable


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
