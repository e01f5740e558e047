"""NanoGuard, from the package metatronnanoguard: a transformer of 16.8 million parameters."""

from typing import Any

import torch
from answering import Ask, answer
from nanoguard import NanoGuard


def load(_job: dict[str, Any]) -> Ask:
    """The guard with its own weights and threshold."""
    torch.set_num_threads(1)
    guard = NanoGuard(device="cpu")

    def ask(text: str) -> tuple[float, bool]:
        found = guard.scan(text)
        return found.injection_score, found.is_injection

    return ask


answer(load)
