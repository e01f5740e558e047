"""Trait files: contrastive system prompts, questions, and the prompts that checkpoints are read on.

YAML in the published form:

    traits:
      honesty:
        description: ...
        positive_label: honest
        negative_label: dishonest
        positive_system_prompts: [..., ...]
        negative_system_prompts: [..., ...]
    questions: [..., ...]
    eval_prompts:
      technical: [..., ...]
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from layerguard.runtime.bundle.schema import parse
from layerguard.runtime.errors import InputError
from layerguard.runtime.text.request import check_text

ALIGNMENT_TRAITS = (
    "honesty", "sycophancy", "harmlessness", "power_seeking", "helpfulness", "confidence",
    "corrigibility",
)  # fmt: skip
"""The seven traits that arXiv 2606.07631 monitors, in its order."""

_MOST_BYTES = 4 << 20
_LEAST_PROMPTS = 2
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Trait:
    """One trait: two poles, each with system prompts that ask for it."""

    description: str
    positive_label: str
    negative_label: str
    positive_system_prompts: tuple[str, ...]
    negative_system_prompts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TraitFile:
    """The whole file; ``eval_prompts`` are by category."""

    traits: dict[str, Trait]
    questions: tuple[str, ...]
    eval_prompts: dict[str, tuple[str, ...]]

    def prompts(self) -> tuple[str, ...]:
        """The evaluation prompts of all categories, in the file's order."""
        return tuple(prompt for prompts in self.eval_prompts.values() for prompt in prompts)

    def chosen(self, names: Sequence[str]) -> dict[str, Trait]:
        """The named traits in that order; without names the seven of the paper, or else all.

        Raises:
            InputError: a name is not in the file.
        """
        if not names:
            complete = set(ALIGNMENT_TRAITS) <= self.traits.keys()
            names = ALIGNMENT_TRAITS if complete else list(self.traits)
        unknown = [name for name in names if name not in self.traits]
        if unknown or len(set(names)) < len(names):
            raise InputError(
                f"traits: found {', '.join(unknown or names)}; expected each once, of "
                f"{', '.join(self.traits)}"
            )
        return {name: self.traits[name] for name in names}

    def sha256(self) -> str:
        """Of what the file says, in hex; its layout and comments are no part of it."""
        plain = [
            [
                [n, t.positive_system_prompts, t.negative_system_prompts]
                for n, t in self.traits.items()
            ],
            self.questions,
            self.prompts(),
        ]
        return hashlib.sha256(json.dumps(plain).encode()).hexdigest()


def read_traits(path: Path) -> TraitFile:
    """The trait file at ``path``.

    Raises:
        InputError: it cannot be read or is not in the form above; every fault is listed.
    """
    value = _plain(path)
    faults: list[str] = []
    found: TraitFile | None = parse(TraitFile, value, path.name, faults)
    if found is not None:
        faults += _contradictions(found)
    if found is None or faults:
        more = [f"and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
        listed = "".join(f"\n  - {fault}" for fault in [*faults[:_SHOWN], *more])
        raise InputError(f"{path} is no trait file:{listed}")
    return found


def _plain(path: Path) -> Any:
    """What the YAML says, as JSON types."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(
                f"{path} has {path.stat().st_size} bytes; expected a trait file of at most "
                f"{_MOST_BYTES}"
            )
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected a trait file in YAML") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 at byte {error.start}; expected a trait file in YAML"
        ) from error
    try:
        return json.loads(json.dumps(yaml.safe_load(text)))  # dates, sets and circles are no JSON
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        flat = " ".join(str(error).split())
        raise InputError(
            f"{path} is not YAML of plain values ({flat}); expected a trait file"
        ) from error


def _contradictions(found: TraitFile) -> list[str]:
    """Values that have the right type and no monitor could use."""
    faults = []
    if not found.traits:
        faults.append("traits is empty; expected one or more")
    for name, trait in found.traits.items():
        poles = trait.positive_system_prompts, trait.negative_system_prompts
        if min(map(len, poles)) < _LEAST_PROMPTS or len(poles[0]) != len(poles[1]):
            faults.append(
                f"traits.{name} has {len(poles[0])} positive and {len(poles[1])} negative system "
                f"prompts; expected as many of either, {_LEAST_PROMPTS} or more (5 are published)"
            )
        faults += _text_faults(f"traits.{name}", [*poles[0], *poles[1]])
    if len(found.questions) < _LEAST_PROMPTS:
        faults.append(
            f"questions has {len(found.questions)}; expected {_LEAST_PROMPTS} or more (30 are "
            "published)"
        )
    if not found.prompts():
        faults.append("eval_prompts is empty; expected one or more (115 are published)")
    faults += _text_faults("questions", found.questions)
    return faults + _text_faults("eval_prompts", found.prompts())


def _text_faults(where: str, texts: Sequence[str]) -> list[str]:
    """Texts that are empty, stand twice, or that no tokenizer reads."""
    faults = [f"{where}: an empty text; expected words" for text in texts if not text.strip()]
    faults += [
        f"{where}: {text[:40]!r} stands {count} times; expected once"
        for text, count in Counter(texts).items()
        if count > 1
    ]
    for text in texts:
        try:
            check_text(where, text)
        except InputError as error:
            faults.append(str(error))
    return faults
