"""The guard: a bundle, its graph and its detectors, answering with one verdict."""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from layerguard.runtime.backbone import Backbone, PooledStates
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.bundle.load import steadily
from layerguard.runtime.bundle.manifest import Canary
from layerguard.runtime.detectors import REGISTRY, Detector
from layerguard.runtime.errors import BundleError, InputError
from layerguard.runtime.session import Device
from layerguard.runtime.text.request import Message, Request, request
from layerguard.runtime.types import Array, Reading, Tap, Verdict

_TRIAL = Canary("a quiet garden", {}, 0.0)
"""Stands in for the canaries of a bundle that has none, so that its graph has run once."""


class Guard:
    """Reads a text through the exported model and says whether something is wrong with it.

    One guard serves many threads. Make it with ``Guard.load``.
    """

    def __init__(
        self, bundle: Bundle, backbone: Backbone, detectors: Mapping[str, Detector]
    ) -> None:
        self.bundle = bundle
        self.backbone = backbone
        self._detectors = dict(detectors)
        self._taps = {detector.tap for detector in self._detectors.values()}

    @classmethod
    def load(cls, path: str | Path, *, device: Device = "cpu", threads: int = 0) -> "Guard":
        """Load, verify and try out a bundle.

        Args:
            path: the bundle's folder.
            device: ``cpu`` or ``cuda``; never a silent CPU.
            threads: ONNX Runtime's threads within one operator; 0 lets it choose.

        Raises:
            BundleError: the bundle has faults, is not calibrated, or a canary gives another score.
            MachineError: onnxruntime is missing or the device does not engage.
        """

        def load_once() -> Guard:
            bundle = Bundle.load(path)
            if not bundle.manifest.detectors:
                fault = "it has no detectors yet; run `layerguard calibrate BUNDLE --clean ROWS`"
                raise BundleError(path, [fault])
            guard = cls(bundle, Backbone(bundle, device, threads), bind_detectors(bundle))
            guard._replay_canaries()
            return guard

        return steadily(Path(path), load_once)

    def check(
        self,
        text: str | None = None,
        *,
        prompt: str | None = None,
        response: str | None = None,
        messages: Sequence[Message] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> Verdict:
        """The verdict on one text, prompt (with or without its response), or chat.

        Raises:
            InputError: none or several of text, prompt and messages were given, or one is not of
                the right type.
        """
        one = request(text, prompt=prompt, response=response, messages=messages, tools=tools)
        return self.check_requests([one])[0]

    def check_batch(self, texts: Sequence[str | Mapping[str, Any]]) -> list[Verdict]:
        """The verdicts on many texts; a mapping holds the keyword arguments of ``check``.

        Raises:
            InputError: a text is wrong; the message gives its index.
        """
        if isinstance(texts, (str, bytes, Mapping)):
            raise InputError(f"texts: found one {type(texts).__name__}; expected a list of texts")
        requests = []
        for index, item in enumerate(texts):
            try:
                requests.append(request(item) if isinstance(item, str) else request(**item))
            except (InputError, TypeError) as error:
                raise InputError(f"item {index}: {error}") from error
        return self.check_requests(requests)

    def check_requests(self, requests: Sequence[Request]) -> list[Verdict]:
        """The verdicts on requests already made, such as rows of a file."""
        if not requests:
            return []
        start = time.perf_counter()
        pooled = self.backbone.read(requests, self._taps)
        scoring = time.perf_counter()
        readings = {name: _worst(d, pooled) for name, d in self._detectors.items()}
        done = time.perf_counter()
        timings = {
            **pooled.timings_ms,
            "score": (done - scoring) * 1e3,
            "total": (done - start) * 1e3,
        }
        return [
            self._verdict(
                {name: found[i] for name, found in readings.items()},
                timings,
                tokens=pooled.tokens[i],
                truncated=pooled.truncated[i],
            )
            for i in range(len(requests))
        ]

    def score_states(
        self,
        states: Sequence[Array] | Array,
        mask: Array | None = None,
        roles: Array | None = None,
    ) -> Verdict:
        """The verdict on states that another engine computed, read where they lie.

        Args:
            states: L + 1 arrays [tokens, hidden], or one array [L + 1, tokens, hidden]; float32,
                float16 or bfloat16; before the final norm (see ``layerguard.runtime.types``).
            mask: [tokens], true where a token counts.
            roles: [tokens], 0 system, 1 user, 2 assistant, 3 tool. None of today's detectors
                tells roles apart; they are checked for their length only.

        Raises:
            InputError: a shape, dtype or layout is wrong, or a detector of the bundle reads the
                state after the final norm, which these states do not have.
        """
        start = time.perf_counter()
        tokens = _token_count(states)
        model = self.bundle.manifest.model
        if (len(states), np.shape(states[0])[-1]) != (model.layers + 1, model.width):
            raise InputError(
                f"states: found {len(states)} of width {np.shape(states[0])[-1]}; expected "
                f"{model.layers + 1} of width {model.width}: give the states of {model.id}"
            )
        if roles is not None and np.shape(roles) != (tokens,):
            raise InputError(
                f"roles: found shape {np.shape(roles)}; expected ({tokens},), one entry a token"
            )
        normed = [n for n, d in self._detectors.items() if d.tap.semantics == "hf"]
        if normed:
            raise InputError(
                f"{', '.join(normed)} read the state after the final norm, which states from "
                "another engine do not carry; check the text instead"
            )
        readings = {name: d.score(states, mask) for name, d in self._detectors.items()}
        elapsed = (time.perf_counter() - start) * 1e3
        counted = tokens if mask is None else int(np.count_nonzero(mask))
        timings = {"score": elapsed, "total": elapsed}
        return self._verdict(readings, timings, tokens=counted, truncated=False)

    def _verdict(
        self,
        readings: Mapping[str, Reading],
        timings: Mapping[str, float],
        *,
        tokens: int,
        truncated: bool,
    ) -> Verdict:
        flagged = [reading for reading in readings.values() if reading.flagged]
        invalid = any(reading.status == "invalid" for reading in flagged)
        return Verdict(
            flagged=bool(flagged),
            status="invalid" if invalid else "ok",
            reason="; ".join(map(_why, flagged)) or "every score is within its threshold",
            readings=readings,
            timings_ms=timings,
            bundle_id=self.bundle.id,
            tokens=tokens,
            truncated=truncated,
        )

    def _replay_canaries(self) -> None:
        """Check the known texts.

        Raises:
            BundleError: a wrong provider, a broken kernel or another graph gives other scores.
        """
        faults = []
        for canary in self.bundle.manifest.canaries or (_TRIAL,):
            try:
                readings = self.check(canary.text).readings
            except InputError as error:
                faults.append(f"canary {canary.text[:40]!r} cannot be checked ({error})")
                continue
            for name, expected in canary.scores.items():
                found = readings[name].score if name in readings else math.nan
                if not abs(found - expected) <= canary.tolerance * (1 + abs(expected)):
                    faults.append(
                        f"canary {canary.text[:40]!r}: {name} scores {found:.6g} here; expected "
                        f"{expected:.6g} within {canary.tolerance:g}. Run `layerguard doctor`; "
                        "recalibrate for this device if it is meant to serve"
                    )
        if faults:
            raise BundleError(self.bundle.path, faults)


def bind_detectors(bundle: Bundle) -> dict[str, Detector]:
    """The bundle's detectors, bound to their parameters, by name.

    Raises:
        BundleError: a kernel refuses its parameters.
    """
    detectors = {}
    for name, card in bundle.manifest.detectors.items():
        tap = Tap(card.view, card.pooling, card.semantics)
        try:
            detectors[name] = REGISTRY[name].bind(bundle.params[name], tap)
        except InputError as error:
            raise BundleError(bundle.path, [f"{name}: {error}; calibrate again"]) from error
    return detectors


def _token_count(states: Sequence[Array] | Array) -> int:
    try:
        return int(np.shape(states[0])[0])
    except (TypeError, ValueError, IndexError, KeyError) as error:
        raise InputError(
            f"states: found {type(states).__name__} ({error}); expected L + 1 arrays [tokens, "
            "hidden], or one array [L + 1, tokens, hidden]"
        ) from error


def _worst(detector: Detector, pooled: PooledStates) -> list[Reading]:
    """Each request's reading: that of its worst window; an invalid one is worse than any score."""
    tap = detector.tap
    readings = detector.score_pooled(pooled.layers[tap.pooling, tap.semantics])
    return [
        readings[windows[0]]
        if len(windows) == 1
        else max(map(readings.__getitem__, windows), key=_badness)
        for windows in pooled.rows[tap.view]
    ]


def _badness(reading: Reading) -> float:
    return math.inf if reading.status == "invalid" else reading.score


def _why(reading: Reading) -> str:
    if reading.status == "invalid":
        return f"{reading.detector}: the score is not finite, so the text is flagged"
    layers = ", ".join(str(item.layer) for item in reading.evidence[:3])
    where = f", most at layers {layers}" if layers else ""
    return (
        f"{reading.detector}: score {reading.score:.3g} above {reading.threshold:.3g} "
        f"(p = {reading.p_value:.2g}){where}"
    )
