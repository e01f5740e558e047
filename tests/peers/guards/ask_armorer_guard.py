"""armorer-guard: a binary with rules and a linear classifier, which is started for every text."""

from typing import Any

from answering import Ask, answer
from armorer_guard import inspect_input


def load(_job: dict[str, Any]) -> Ask:
    """The guard; a text without a finding has the score 0."""

    def ask(text: str) -> tuple[float, bool]:
        found = inspect_input(text)
        return found.confidence if found.suspicious else 0.0, found.suspicious

    return ask


answer(load)
