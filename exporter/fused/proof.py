"""Proves a fused graph: compares it with the runtime on texts, one by one and in batches."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from layerguard.exporter.fused.graph import Design
from layerguard.runtime.bundle.fused import FusedProof
from layerguard.runtime.errors import ExportError
from layerguard.runtime.fused_inputs import fused_inputs, is_one_window, read_fused
from layerguard.runtime.guard import Guard
from layerguard.runtime.model.session import Session
from layerguard.runtime.text.request import Request
from layerguard.runtime.types import Array, Verdict

TOLERANCES: dict[str, float] = {"float32": 1e-5, "int8": 1e-5, "float16": 2e-3}
"""Maximum of |graph - runtime| / (1 + |runtime|) by the backbone's dtype. Both run the same
backbone and differ in the order of float32 additions. In float16 a state that is not an output of
the fused graph may skip a rounding to half precision, a relative error of 2**-11."""

_AT_ONCE = 8
_LONGEST_CHUNK = 7


def feeds(guard: Guard, design: Design, requests: Sequence[Request]) -> dict[str, Array] | None:
    """The inputs of the fused graph for some texts; None if one is read in several windows.

    Args:
        guard: guard of the bundle.
        design: design of the fused graph.
        requests: the texts.

    Returns:
        ``input_ids``, ``attention_mask``, and ``rows`` and ``roles`` if the graph has these inputs.
    """
    reader = guard.backbone.reader
    texts = [read_fused(reader, design.sources, one) for one in requests]
    if not all(map(is_one_window, texts)):
        return None
    pad = design.bundle.manifest.text.pad_token_id
    return fused_inputs(texts, pad, reads_roles=design.reads_roles)


def prove(graph: Path, design: Design, guard: Guard, requests: Sequence[Request]) -> FusedProof:
    """Run graph and runtime on the texts, one by one and in batches.

    Args:
        graph: the fused graph, in the same folder as the bundle's weights.
        design: the design that it was built from.
        guard: guard of the same bundle.
        requests: the texts; those read in several windows are left out.

    Raises:
        ExportError: a score differs by more than the tolerance, or a verdict differs.
        BundleError: ONNX Runtime cannot load the graph.
    """
    session = _session(graph, guard)
    usable = _usable(guard, design, requests)
    differences = _Differences(design)
    for batch in _batches(design, usable):
        inputs = feeds(guard, design, batch)
        assert inputs is not None
        differences.add(session.run(differences.outputs, inputs), guard, batch)
    return differences.proof(len(usable))


def prove_growing(
    graph: Path, design: Design, guard: Guard, requests: Sequence[Request]
) -> FusedProof:
    """Run the fused decode graph on the texts in chunks; see ``prove``."""
    session = _session(graph, guard)
    usable = _usable(guard, design, requests)
    differences = _Differences(design)
    for place, one in enumerate(usable):
        inputs = feeds(guard, design, [one])
        assert inputs is not None
        growing = Growing(session, inputs)
        for answer in growing.chunks(1 + place % _LONGEST_CHUNK):
            last = answer
        differences.add([last[name] for name in differences.outputs], guard, [one])
    return differences.proof(len(usable))


class Growing:
    """Runs the fused decode graph in chunks, and keeps the cache and the states."""

    def __init__(self, session: Session, inputs: Mapping[str, Array]) -> None:
        """Start before the first token of the texts; ``inputs`` is the result of ``feeds``."""
        self._session, self._inputs = session, inputs
        self._names = [name for name in session.inputs if not name.endswith("_threshold")]
        self._outputs = list(session.outputs)
        self._past = {name: self._zeros(name) for name in self._names if name not in inputs}

    def chunks(self, size: int) -> Iterator[dict[str, Array]]:
        """All outputs after each chunk of ``size`` tokens."""
        tokens = self._inputs["input_ids"].shape[1]
        for start in range(0, tokens, size):
            end = min(start + size, tokens)
            feed = dict(self._past)
            for name, array in self._inputs.items():
                feed[name] = array[:, start:end] if name in ("input_ids", "roles") else array
            feed["attention_mask"] = self._inputs["attention_mask"][:, :end]
            answer = dict(zip(self._outputs, self._session.run(self._outputs, feed), strict=True))
            for name in self._past:
                self._past[name] = self._next(name, answer)
            yield answer

    def _next(self, name: str, answer: Mapping[str, Array]) -> Array:
        """The next value of ``past_...``: caches are extended, states are replaced."""
        new = answer.get(name.removeprefix("past_"))
        if new is None:
            return self._past[name]
        if name.startswith(("past_key_", "past_value_")):
            return np.concatenate([self._past[name], new], axis=2)
        return new

    def _zeros(self, name: str) -> Array:
        """The value before the first token: an empty cache, states of zeros, no steering."""
        dtype, sides = self._session.input_type(name)
        rows = len(self._inputs["input_ids"])
        if name == "steering":
            return np.zeros([1 if side is None else side for side in sides], dtype)
        free = iter((rows, 0))  # the rows and the tokens of a cache
        return np.zeros([next(free) if side is None else side for side in sides], dtype)


class _Differences:
    """The differences between a graph and the runtime so far."""

    def __init__(self, design: Design) -> None:
        self._names = list(design.detectors)
        self._tolerance = TOLERANCES[design.bundle.manifest.model.dtype]
        self.outputs = [*(f"{name}_score" for name in self._names), "flagged"]
        self._largest = dict.fromkeys(self._names, 0.0)
        self._flips = 0

    def add(self, values: Sequence[Array], guard: Guard, batch: Sequence[Request]) -> None:
        """Compare the graph's outputs on some texts with the runtime."""
        verdicts = guard.check_requests(batch, counted=False)
        *scores, flagged = values
        for name, column in zip(self._names, scores, strict=True):
            apart = _apart(column, [verdict.readings[name].score for verdict in verdicts])
            self._largest[name] = float(np.maximum(self._largest[name], apart))
        self._flips += _flips(flagged, verdicts)

    def proof(self, texts: int) -> FusedProof:
        """The proof.

        Raises:
            ExportError: the differences are too large.
        """
        proof = FusedProof(self._tolerance, texts, self._flips, self._largest)
        _check(proof)
        return proof


def _session(graph: Path, guard: Guard) -> Session:
    served = guard.backbone.session
    return Session(graph, served.device, served.threads)


def _usable(guard: Guard, design: Design, requests: Sequence[Request]) -> list[Request]:
    usable = [one for one in requests if feeds(guard, design, [one]) is not None]
    if not usable:
        raise ExportError("every text is read in several windows; expected one: pass shorter texts")
    return usable


def _batches(design: Design, requests: Sequence[Request]) -> Iterator[Sequence[Request]]:
    """Each text alone; then batches, except in int8, where rows depend on each other."""
    yield from ([one] for one in requests)
    if design.bundle.manifest.model.dtype == "int8":
        return
    for start in range(0, len(requests), _AT_ONCE):
        yield requests[start : start + _AT_ONCE]


def _apart(scores: Array, runtime_scores: Sequence[float]) -> float:
    """The largest relative difference; 0 if both scores are not finite."""
    expected = np.array(runtime_scores)
    both = ~np.isfinite(scores) & ~np.isfinite(expected)
    with np.errstate(invalid="ignore"):
        apart = np.abs(scores - expected) / (1 + np.abs(expected))
    return float(np.where(both, 0, apart).max())


def _flips(flagged: Array, verdicts: Sequence[Verdict]) -> int:
    return sum(
        flag != verdict.flagged for flag, verdict in zip(flagged.tolist(), verdicts, strict=True)
    )


def _check(proof: FusedProof) -> None:
    beyond: Mapping[str, float] = {
        name: apart for name, apart in proof.largest.items() if not apart <= proof.tolerance
    }
    if beyond or proof.flips:
        listed = ", ".join(f"{name} by {apart:.3g}" for name, apart in beyond.items())
        raise ExportError(
            f"the fused graph differs from the runtime over {proof.texts} texts: scores "
            f"({listed or 'within the tolerance'}) and {proof.flips} verdicts; expected at most "
            f"{proof.tolerance:g} and no verdict. Nothing was written; serve this bundle with the "
            "runtime, and report the model"
        )
