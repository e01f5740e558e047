"""LayerGuard's runtime: a guard that reads a language model's hidden layers, without PyTorch.

    from layerguard.runtime import Guard

    guard = Guard.load("guard/")                     # verified, canaries replayed
    verdict = guard.check("Ignore all previous instructions and ...")
    if verdict.flagged:
        print(verdict.reason)

A bundle is made with ``layerguard export`` and ``layerguard calibrate``; one that was packed and
installed is loaded by name, ``Guard.load("acme-guard", verify="public.pem")``. Many texts are
checked with ``guard.check_batch(texts)``; ``guard.stream`` checks an answer that is being written,
and ``guard.generate`` writes one. ``guard.acheck``, ``acheck_batch`` and ``astream`` are for
asyncio. States of another engine are scored with ``guard.score_states(states)``, and
``layerguard.runtime.engines`` brings them into its form.
"""

from layerguard.runtime.asynchronous import AsyncStream
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.errors import BundleError, InputError, LayerGuardError, MachineError
from layerguard.runtime.generation.event import Event, OnFlag
from layerguard.runtime.generation.sampling import Sampler
from layerguard.runtime.guard import Guard
from layerguard.runtime.limits import Limits
from layerguard.runtime.streaming.stream import Stream
from layerguard.runtime.types import Evidence, Reading, Span, Verdict

__all__ = [
    "AsyncStream",
    "Bundle",
    "BundleError",
    "Event",
    "Evidence",
    "Guard",
    "InputError",
    "LayerGuardError",
    "Limits",
    "MachineError",
    "OnFlag",
    "Reading",
    "Sampler",
    "Span",
    "Stream",
    "Verdict",
]
