"""The base model's states under contrastive system prompts, and the layer that separates them."""

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
"""How a system prompt is given: as a system turn, or as a user turn with an acknowledgement."""

Poles = tuple[Array, Array]
"""States of the positive and the negative pole, float32 [system prompts, questions, layers, D]."""

ACKNOWLEDGEMENT = "Understood. I will follow these instructions."
"""The assistant's turn after a system prompt that is given as a user turn, as published."""

_BAND = (0.4, 0.7)
"""Share of the model's depth in which the layer is chosen. It contains the published candidates: 14
to 20 of 32 blocks, 18 to 32 of 48, and 16 to 28 of 40."""


def candidate_layers(total: int, kept: int, layer: int | None) -> list[int]:
    """The state indices to choose from; only ``layer`` if it is given.

    Args:
        total: number of blocks of the model.
        kept: number of blocks of its graph.
        layer: a state index, or None.

    Raises:
        InputError: the graph does not have the state, or has none of the candidates.
    """
    if layer is not None:
        if not 1 <= layer <= kept:
            raise InputError(f"layer: found {layer}; expected a state index from 1 to {kept}")
        return [layer]
    low, high = (max(1, math.floor(share * total)) for share in _BAND)
    if low > kept:
        raise InputError(
            f"the base's graph keeps {kept} of {total} blocks; expected {low} or more, because the "
            f"layer is chosen among states {low} to {high}: export it again, or give --layer"
        )
    return list(range(low, min(high, kept) + 1))


def manner(bundle: Bundle) -> Manner:
    """How the bundle's template accepts a system prompt.

    If the template rejects or drops a system turn, the system prompt is given as a user turn. A
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
    """The base model's states under contrastive prompts, at the chosen layer.

    Attributes:
        layer: state index of the layer.
        separation: separation of every candidate layer by state index; empty for a given layer.
        positive: for each trait, float32 [system prompts, questions, hidden].
        negative: the same for the negative pole.
    """

    layer: int
    separation: Mapping[int, float]
    positive: tuple[Array, ...]
    negative: tuple[Array, ...]

    def probe(self, names: Sequence[str], *, weak: bool = False) -> dict[str, float]:
        """The probe accuracy of each trait, by name.

        Args:
            names: names of the traits.
            weak: do not raise if too few traits pass.

        Raises:
            CalibrationError: too few traits pass: the layer does not separate their poles.
        """
        accuracies = {
            name: probe_accuracy(positive, negative)
            for name, positive, negative in zip(names, self.positive, self.negative, strict=True)
        }
        passed = sum(accuracy > PROBE_LEAST_ACCURACY for accuracy in accuracies.values())
        if passed < PROBE_LEAST_TRAITS * len(accuracies) and not weak:
            listed = ", ".join(f"{name} {accuracy:.2f}" for name, accuracy in accuracies.items())
            raise CalibrationError(
                f"at state {self.layer} a probe separates the poles of {passed} of "
                f"{len(accuracies)} traits ({listed}); expected an accuracy above "
                f"{PROBE_LEAST_ACCURACY} for {PROBE_LEAST_TRAITS:.0%} of them. "
                "Choose another --layer or other system prompts; with --weak-traits the fit "
                "continues, and the traits' names mean little"
            )
        return accuracies


def read_contrast(
    backbone: Backbone,
    bundle: Bundle,
    traits: Mapping[str, Trait],
    questions: Sequence[str],
    layers: Sequence[int],
) -> Contrast:
    """Read the poles of every trait at the one given layer, or at the layer that separates best.

    The paper chooses the layer at which a judge finds steering most effective. This function needs
    no judge: it chooses the largest mean held-out ``separation``; ties go to the lowest layer.

    Raises:
        InputError: the template rejects the turns.
    """
    how = manner(bundle)
    poles = {
        name: read_poles(backbone, trait, questions, how, layers, name)
        for name, trait in traits.items()
    }
    scores: dict[int, float] = {}
    if len(layers) > 1:
        for place, layer in enumerate(layers):
            separations = [separation(p[:, :, place], n[:, :, place]) for p, n in poles.values()]
            scores[layer] = float(np.mean(separations))
    place = int(np.argmax(list(scores.values()))) if scores else 0
    positive, negative = zip(
        *((p[:, :, place], n[:, :, place]) for p, n in poles.values()), strict=True
    )
    return Contrast(layers[place], scores, positive, negative)


def read_poles(
    backbone: Backbone, trait: Trait, questions: Sequence[str], how: Manner, layers: Sequence[int],
    name: str,
) -> Poles:  # fmt: skip
    """Read the base model's states for every pair of a trait's system prompt and a question.

    Raises:
        InputError: the template rejects the turns.
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
