"""Attacks a fresh toy bundle in every way of the catalogue, and prints what held.

    python -m tests.attacks.run [WORD ...]

Each attack runs in a process of its own with limits of processor time, memory and waiting. With
words, only families or attacks with such a word in their name run. The exit code is 1 if an attack
did not hold.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.attacks.attack import Attack, attempt
from tests.attacks.catalogue import FAMILIES


def main(words: list[str]) -> int:
    """Run the catalogue; 1 if something did not hold."""
    chosen = [
        (family, attack)
        for family, attacks in FAMILIES.items()
        for attack in attacks
        if not words or any(word in f"{family} {attack.name}" for word in words)
    ]
    print(f"{'family':28}{'attack':46}{'limit':>16}{'time':>9}{'peak':>11}")
    held = [_report(family, attack) for family, attack in chosen]
    print(f"{sum(held)} of {len(held)} attacks held")
    return 0 if held and all(held) else 1


def _report(family: str, attack: Attack) -> bool:
    """Try one attack and print its row; whether it held."""
    with TemporaryDirectory(prefix="layerguard-attack-") as folder:
        outcome = attempt(attack, Path(folder))
    word = f"NOT HELD: {outcome.fault}" if outcome.fault else "held"
    limit = f"{attack.seconds:g} s {attack.mebibytes:4} MiB"
    print(
        f"{family:28}{attack.name:46}{limit:>16}{outcome.seconds:7.2f} s"
        f"{outcome.mebibytes:7.0f} MiB  {word}",
        flush=True,
    )
    return not outcome.fault


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
