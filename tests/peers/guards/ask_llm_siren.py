"""The smallest released SIREN, from its authors' package; its weights come from their hub."""

from typing import Any

import torch
from answering import Ask, answer
from siren_guard import SirenGuard


def load(_job: dict[str, Any]) -> Ask:
    """The head on Qwen3-0.6B."""
    torch.set_num_threads(1)
    guard = SirenGuard.from_pretrained(
        "UofTCSSLab/SIREN-Qwen3-0.6B", device="cpu", dtype=torch.float32
    )

    def ask(text: str) -> tuple[float, bool]:
        found = guard.score(text)
        return found.score, found.is_harmful

    return ask


answer(load)
