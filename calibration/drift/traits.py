"""Trait files: contrastive system prompts, questions, and evaluation prompts for checkpoints.

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
from layerguard.runtime.regular_files import read_regular
from layerguard.runtime.text.request import check_text

ALIGNMENT_TRAITS = (
    "honesty", "sycophancy", "harmlessness", "power_seeking", "helpfulness", "confidence",
    "corrigibility",
)  # fmt: skip
"""The seven traits that arXiv 2606.07631 monitors, in its order."""

_MAX_BYTES = 4 << 20
_LEAST_PROMPTS = 2
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Trait:
    """A trait with two poles, each with system prompts that ask for it."""

    description: str
    positive_label: str
    negative_label: str
    positive_system_prompts: tuple[str, ...]
    negative_system_prompts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TraitFile:
    """A trait file; ``eval_prompts`` maps a category to its prompts."""

    traits: dict[str, Trait]
    questions: tuple[str, ...]
    eval_prompts: dict[str, tuple[str, ...]]

    def prompts(self) -> tuple[str, ...]:
        """The evaluation prompts of all categories, in the file's order."""
        return tuple(prompt for prompts in self.eval_prompts.values() for prompt in prompts)

    def chosen(self, names: Sequence[str]) -> dict[str, Trait]:
        """The named traits, in that order; without names the paper's seven, or else all traits.

        Raises:
            InputError: a name is not in the file, or occurs twice.
        """
        if not names:
            complete = set(ALIGNMENT_TRAITS) <= self.traits.keys()
            names = ALIGNMENT_TRAITS if complete else list(self.traits)
        unknown = [name for name in names if name not in self.traits]
        if unknown or len(set(names)) < len(names):
            raise InputError(
                f"traits: found {', '.join(unknown or names)}; expected different names out of "
                f"{', '.join(self.traits)}"
            )
        return {name: self.traits[name] for name in names}

    def sha256(self) -> str:
        """The sha256 of the content in hex, independent of layout and comments."""
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
    """Read the trait file at ``path``.

    Raises:
        InputError: the file cannot be read or is not in the form above; lists every fault.
    """
    value = _plain(path)
    faults: list[str] = []
    trait_file: TraitFile | None = parse(TraitFile, value, path.name, faults)
    if trait_file is not None:
        faults += _contradictions(trait_file)
    if trait_file is None or faults:
        more = [f"and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
        listed = "".join(f"\n  - {fault}" for fault in [*faults[:_SHOWN], *more])
        raise InputError(f"{path} is not a trait file:{listed}")
    return trait_file


class _PlainLoader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
    """Refuses aliases: a few lines of them stand for a tree of any size."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"found the alias *{self.peek_event().anchor}; write the text out")
        return super().compose_node(parent, index)


def _plain(path: Path) -> Any:
    """The content of the YAML file as JSON types."""
    try:
        text = read_regular(path, _MAX_BYTES).decode()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected a trait file in YAML") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 at byte {error.start}; expected a trait file in YAML"
        ) from error
    try:
        value = yaml.load(text, _PlainLoader)  # noqa: S506  it is a SafeLoader
        return json.loads(json.dumps(value))  # rejects dates and sets
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        flat = " ".join(str(error).split())
        raise InputError(
            f"{path} is not YAML of plain values ({flat}); expected a trait file"
        ) from error


def _contradictions(trait_file: TraitFile) -> list[str]:
    """Faults of values that have the right type but that no monitor can use."""
    faults = []
    if not trait_file.traits:
        faults.append("traits is empty; expected one or more")
    for name, trait in trait_file.traits.items():
        poles = trait.positive_system_prompts, trait.negative_system_prompts
        if min(map(len, poles)) < _LEAST_PROMPTS or len(poles[0]) != len(poles[1]):
            faults.append(
                f"traits.{name} has {len(poles[0])} positive and {len(poles[1])} negative system "
                f"prompts; expected equal numbers, {_LEAST_PROMPTS} or more (5 are published)"
            )
        faults += _text_faults(f"traits.{name}", [*poles[0], *poles[1]])
    if len(trait_file.questions) < _LEAST_PROMPTS:
        faults.append(
            f"questions has {len(trait_file.questions)}; expected {_LEAST_PROMPTS} or more (30 are "
            "published)"
        )
    if not trait_file.prompts():
        faults.append("eval_prompts is empty; expected one or more (115 are published)")
    faults += _text_faults("questions", trait_file.questions)
    return faults + _text_faults("eval_prompts", trait_file.prompts())


def _text_faults(where: str, texts: Sequence[str]) -> list[str]:
    """Faults of texts that are empty, duplicate, or unreadable for a tokenizer."""
    faults = [f"{where}: an empty text; expected words" for text in texts if not text.strip()]
    faults += [
        f"{where}: {text[:40]!r} occurs {count} times; expected once"
        for text, count in Counter(texts).items()
        if count > 1
    ]
    for text in texts:
        try:
            check_text(where, text)
        except InputError as error:
            faults.append(str(error))
    return faults
