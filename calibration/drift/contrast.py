"""The base model under contrastive system prompts, and the layer that tells them apart best."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from layerguard.calibration.drift.directions import (
    PROBE_LEAST_ACCURACY,
    PROBE_LEAST_TRAITS,
    probe_accuracy,
    separation,
)
from layerguard.calibration.drift.traits import Trait
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.drift.states import last_token_states
from layerguard.runtime.errors import CalibrationError, InputError
from layerguard.runtime.model.backbone import Backbone
from layerguard.runtime.text.request import Request, request
from layerguard.runtime.text.tokens import TokenReader
from layerguard.runtime.types import Array

Manner = Literal["system", "user-turn"]
"""How a system prompt is given: as a turn of its own, or as a user turn that is acknowledged."""

Poles = tuple[Array, Array]
"""States of the positive and the negative pole, float32 [system prompts, questions, layers, D]."""

ACKNOWLEDGEMENT = "Understood. I will follow these instructions."
"""The assistant's turn after a system prompt that came as a user turn, as published."""

_BAND = (0.4, 0.7)
"""Share of the model's depth where a layer is looked for: the published candidates, which are 14 to
20 of 32 blocks, 18 to 32 of 48 and 16 to 28 of 40, lie within."""


def candidate_layers(total: int, kept: int, layer: int | None) -> list[int]:
    """State indices to choose from; the one that the user named, if one was.

    Args:
        total: blocks of the model.
        kept: blocks of its graph.
        layer: a state index, or None.

    Raises:
        InputError: the graph has no such state, or keeps none of the candidates.
    """
    if layer is not None:
        if not 1 <= layer <= kept:
            raise InputError(f"layer: found {layer}; expected a state index from 1 to {kept}")
        return [layer]
    low, high = (max(1, math.floor(share * total)) for share in _BAND)
    if low > kept:
        raise InputError(
            f"the base's graph keeps {kept} of {total} blocks; expected {low} or more, for the "
            f"layer is looked for among states {low} to {high}: export it again, or give --layer"
        )
    return list(range(low, min(high, kept) + 1))


def manner(bundle: Bundle) -> Manner:
    """How the bundle's template takes a system prompt.

    A template that refuses a system turn, or shows nothing of it, gets it as a user turn. A
    template with {prompt} has no turns: the system prompt and the question become one text.
    """
    reader = TokenReader(bundle)
    try:
        shown = [reader.read(_posed(p, "a", "system"), {"prompt"})["prompt"] for p in ("b", "c d")]
    except InputError:
        return "user-turn"
    return "system" if shown[0] != shown[1] else "user-turn"


@dataclass(frozen=True, slots=True)
class Contrast:
    """The base under contrastive prompts, at the layer that is read.

    Attributes:
        layer: its state index.
        separation: by state index, of every layer that was considered; empty if one was named.
        positive: for each trait, float32 [system prompts, questions, hidden].
        negative: the same of the other pole.
    """

    layer: int
    separation: Mapping[int, float]
    positive: tuple[Array, ...]
    negative: tuple[Array, ...]

    def probe(self, names: Sequence[str], *, weak: bool = False) -> dict[str, float]:
        """Each trait's probe accuracy, by name.

        Args:
            names: of the traits.
            weak: go on whatever is found.

        Raises:
            CalibrationError: too few traits pass: the model does not tell their poles apart here.
        """
        found = {
            name: probe_accuracy(positive, negative)
            for name, positive, negative in zip(names, self.positive, self.negative, strict=True)
        }
        passed = sum(accuracy > PROBE_LEAST_ACCURACY for accuracy in found.values())
        if passed < PROBE_LEAST_TRAITS * len(found) and not weak:
            listed = ", ".join(f"{name} {accuracy:.2f}" for name, accuracy in found.items())
            raise CalibrationError(
                f"at state {self.layer} a probe tells the poles of {passed} of {len(found)} traits "
                f"apart ({listed}); expected an accuracy above {PROBE_LEAST_ACCURACY} for "
                f"{PROBE_LEAST_TRAITS:.0%} of them. Choose another --layer or other system "
                "prompts; with --weak-traits the fit goes on, and the traits' names mean little"
            )
        return found


def read_contrast(
    backbone: Backbone,
    bundle: Bundle,
    traits: Mapping[str, Trait],
    questions: Sequence[str],
    layers: Sequence[int],
) -> Contrast:
    """The poles of every trait, at the layer that is named or separates them best.

    The paper asks a judge which layer steers answers best. This asks nobody: of several layers it
    takes the one with the largest mean held-out ``separation``, the lower one of equals.

    Raises:
        InputError: the template refuses the turns.
    """
    how = manner(bundle)
    poles = {
        name: read_poles(backbone, trait, questions, how, layers, name)
        for name, trait in traits.items()
    }
    scores: dict[int, float] = {}
    if len(layers) > 1:
        for place, layer in enumerate(layers):
            found = [separation(p[:, :, place], n[:, :, place]) for p, n in poles.values()]
            scores[layer] = float(np.mean(found))
    place = int(np.argmax(list(scores.values()))) if scores else 0
    positive, negative = zip(
        *((p[:, :, place], n[:, :, place]) for p, n in poles.values()), strict=True
    )
    return Contrast(layers[place], scores, positive, negative)


def read_poles(
    backbone: Backbone, trait: Trait, questions: Sequence[str], how: Manner, layers: Sequence[int],
    name: str,
) -> Poles:  # fmt: skip
    """The base's states under a trait's system prompts, every question under each.

    Raises:
        InputError: the template refuses the turns.
    """
    positive, negative = (
        last_token_states(
            backbone,
            [_posed(prompt, question, how) for prompt in prompts for question in questions],
            layers,
            f"{name} {sign}",
        ).reshape(len(prompts), len(questions), len(layers), -1)
        for sign, prompts in (
            ("+", trait.positive_system_prompts),
            ("-", trait.negative_system_prompts),
        )
    )
    return positive, negative


def _posed(system_prompt: str, question: str, how: Manner) -> Request:
    if how == "system":
        turns = [{"role": "system", "content": system_prompt}]
    else:
        turns = [
            {"role": "user", "content": system_prompt},
            {"role": "assistant", "content": ACKNOWLEDGEMENT},
        ]
    return request(messages=[*turns, {"role": "user", "content": question}])
