"""LayerGuard's runtime: a guard that reads a language model's hidden layers, without PyTorch.

    from layerguard.runtime import Guard

    guard = Guard.load("guard/")                     # verified, canaries replayed
    verdict = guard.check("Ignore all previous instructions and ...")
    if verdict.flagged:
        print(verdict.reason)

A bundle is made with ``layerguard export`` and ``layerguard calibrate``; one that was packed and
installed is loaded by name, ``Guard.load("acme-guard", verify="public.pem")``. Many texts are
checked with ``guard.check_batch(texts)``; states of another engine are scored with
``guard.score_states(states)``, and ``layerguard.runtime.engines`` brings them into its form.
"""

from layerguard.runtime.bundle import Bundle
from layerguard.runtime.errors import BundleError, InputError, LayerGuardError, MachineError
from layerguard.runtime.guard import Guard
from layerguard.runtime.limits import Limits
from layerguard.runtime.types import Evidence, Reading, Span, Verdict

__all__ = [
    "Bundle",
    "BundleError",
    "Evidence",
    "Guard",
    "InputError",
    "LayerGuardError",
    "Limits",
    "MachineError",
    "Reading",
    "Span",
    "Verdict",
]
