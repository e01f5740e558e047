"""Check a released head against a bundle's model, and make it a fitted detector.

llm-siren's training and serving differ in the last block's state: before or after the final norm.
The bundle records the choice in ``settings.last_layer`` and in the card's ``semantics``.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np

from layerguard.calibration.artefacts.config import listed
from layerguard.calibration.artefacts.released_head import Head
from layerguard.calibration.calibrator import prompt_groups
from layerguard.calibration.rows.folds import group_codes, group_maxima
from layerguard.calibration.stages import FittedDetector
from layerguard.calibration.states.blockwise import States
from layerguard.calibration.states.collect import RecordedStates
from layerguard.calibration.thresholds.threshold import conformal_threshold, published_threshold
from layerguard.runtime.bundle import Manifest
from layerguard.runtime.bundle.files import CHAT_TEMPLATE
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.errors import CalibrationError, InputError
from layerguard.runtime.types import Semantics, Tap


def check(head: Head, manifest: Manifest, *, other_base: bool) -> None:
    """Refuse a head whose inputs the bundle's model does not provide.

    Args:
        head: the released head.
        manifest: manifest of the bundle.
        other_base: whether the user confirms that a model of another name is the base model.

    Raises:
        InputError: lists every fault.
    """
    model = manifest.model
    faults = [] if other_base else _base_faults(head, manifest)
    if head.last_layer > model.total_layers:
        faults.append(
            f"the head reads state {head.last_layer}; the model has {model.total_layers} blocks"
        )
    elif head.last_layer > model.layers:
        faults.append(
            f"the head reads state {head.last_layer}; the bundle keeps {model.layers} blocks. "
            f"Export the model with --layers {head.last_layer} or more"
        )
    widest = int(head.params["neurons"].max(initial=-1)) + 1
    if widest > model.width or (head.detector == "agent_siren" and widest != model.width):
        faults.append(f"the head reads {widest} neurons; the model's states have {model.width}")
    kinds = {card.kind for card in manifest.graphs["score"].outputs}
    if head.tap.pooling == "mlp_mean" and "mlp_mean" not in kinds:
        faults.append(
            "the head reads feed-forward outputs (mlp_mean), which the graph does not give. "
            "Export the model with --mlp"
        )
    if head.tap.view == "trajectory" and CHAT_TEMPLATE not in manifest.files:
        faults.append(
            "the head reads an agent's turns in the model's chat template, and the bundle has "
            "none. Export a model whose tokenizer has one"
        )
    budget = head.tap.budget
    if budget and budget.max_tokens > manifest.text.max_tokens:
        faults.append(
            f"the head reads up to {budget.max_tokens} tokens; the bundle "
            f"{manifest.text.max_tokens}. Export the model with --max-tokens {budget.max_tokens}"
        )
    if faults:
        raise InputError(listed("the head does not fit the bundle", faults))


def tap_in(head: Head, manifest: Manifest, last_layer: Semantics | None) -> Tap:
    """The tap with which the head reads the bundle's states.

    Args:
        head: the released head.
        manifest: manifest of the bundle.
        last_layer: the last block's state before (``block``) or after (``hf``) the final norm;
            None for llm-siren's own choice.
    """
    if not reads_last_layer(head, manifest):
        return replace(head.tap, semantics="block")
    return replace(head.tap, semantics=last_layer or head.tap.semantics)


def reads_last_layer(head: Head, manifest: Manifest) -> bool:
    """Whether the head reads the last state, which ``semantics`` selects."""
    return head.tap.pooling != "mlp_mean" and head.last_layer == manifest.model.total_layers


def as_published(head: Head, artefact: str, tap: Tap, *, last_layer_read: bool) -> FittedDetector:
    """The head with its published threshold, which promises no false-positive rate.

    llm-siren flags a score equal to the threshold; LayerGuard flags only scores above it.
    Therefore the stored threshold is the next smaller float64.
    """
    threshold = published_threshold(float(np.nextafter(head.threshold, -math.inf)))
    settings = {
        "artefact": artefact,
        "base_model": head.base_model.model_id,
        "base_revision": head.base_model.revision,
        "default_threshold": head.threshold,
        "last_layer": tap.semantics if last_layer_read else "not read",
        "ignored": list(head.ignored),
        "sha256": dict(head.sha256),
    }
    return FittedDetector(
        head.detector, "imported", head.params, (), 0, settings, threshold, reads=tap
    )


def recalibrated(
    item: FittedDetector, recorded: RecordedStates[States], target_fpr: float
) -> FittedDetector:
    """The head with a split-conformal threshold from clean rows that it was not trained on.

    Args:
        item: the head as published.
        recorded: states of the clean rows under the head's tap.
        target_fpr: share of clean texts that may be flagged, in (0, 1).

    Raises:
        CalibrationError: too few clean texts for the target, or a score that is not finite.
    """
    detector = REGISTRY[item.name].bind(item.frozen_params, item.tap)
    scores = np.array(
        [
            reading.score
            for _, block in recorded.states.blocks()
            for reading in detector.score_pooled(list(map(np.ascontiguousarray, block)))
        ]
    )
    if not np.isfinite(scores).all():
        raise CalibrationError(
            f"{item.name}: {np.count_nonzero(~np.isfinite(scores))} clean rows have no finite "
            "score; expected a finite score of each. Export the model in float32"
        )
    groups = group_codes(prompt_groups(recorded), len(scores))
    threshold = conformal_threshold(group_maxima(scores, groups), target_fpr)
    return replace(item, method="imported-conformal", threshold=threshold, rows=recorded.rows)


def notes(head: Head, manifest: Manifest) -> Sequence[str]:
    """Remarks on this head in this bundle for the user, one sentence each."""
    sentences = []
    if head.last_layer < manifest.model.layers:
        sentences.append(
            f"blocks above {head.last_layer} change no score of it: `layerguard export --layers "
            f"{head.last_layer}` makes a smaller graph with the same scores"
        )
    if manifest.model.dtype != "float32":
        sentences.append(
            f"the graph is {manifest.model.dtype}: scores differ a little from llm-siren's in "
            "float32"
        )
    if head.ignored:
        sentences.append(
            f"nothing reads these keys of its configuration: {', '.join(head.ignored)}"
        )
    return sentences


def _base_faults(head: Head, manifest: Manifest) -> list[str]:
    """One fault if the bundle's model has another name, because its states may differ."""
    base_name, name = head.base_model.model_id, manifest.model.id
    if PurePosixPath(base_name).name.casefold() == PurePosixPath(name).name.casefold():
        return []
    remedy = (
        "Import it into that model's bundle, or say with --other-base that it is the same model by "
        "another name"
    )
    return [f"the head was trained on {base_name!r}; the bundle's model is {name!r}. {remedy}"]
