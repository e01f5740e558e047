"""A released head in a bundle: whether its model can feed the head, and the head as calibrated.

Where llm-siren's training and serving disagree, the last block's state before or after the final
norm, the bundle says which was chosen: ``settings.last_layer`` and the card's ``semantics``.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np

from layerguard.calibration import conformal
from layerguard.calibration.artefacts.artefact import Head
from layerguard.calibration.artefacts.config import listed
from layerguard.calibration.collect import Collected
from layerguard.calibration.folds import group_codes, group_maxima
from layerguard.calibration.freeze import Calibrated
from layerguard.calibration.leakage import prompt_group
from layerguard.calibration.states import States
from layerguard.runtime.bundle import Manifest
from layerguard.runtime.bundle.files import CHAT_TEMPLATE
from layerguard.runtime.detectors import REGISTRY
from layerguard.runtime.errors import CalibrationError, InputError
from layerguard.runtime.types import Array, Semantics, Tap


def check(head: Head, manifest: Manifest, *, other_base: bool) -> None:
    """Refuse a head that the bundle's model cannot feed.

    Args:
        head: the released head.
        manifest: the bundle's.
        other_base: whether the user vouches for a model of another name.

    Raises:
        InputError: with every fault found.
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
    limit = head.tap.limit
    if limit and limit.max_tokens > manifest.text.max_tokens:
        faults.append(
            f"the head reads up to {limit.max_tokens} tokens; the bundle "
            f"{manifest.text.max_tokens}. Export the model with --max-tokens {limit.max_tokens}"
        )
    if faults:
        raise InputError(listed("the head does not fit the bundle", faults))


def tap_in(head: Head, manifest: Manifest, last_layer: Semantics | None) -> Tap:
    """What the head reads in the bundle.

    Args:
        head: the released head.
        manifest: the bundle's.
        last_layer: the last block's state before (``block``) or after (``hf``) the final norm;
            None: as llm-siren serves it.
    """
    if not reads_last_layer(head, manifest):
        return replace(head.tap, semantics="block")
    return replace(head.tap, semantics=last_layer or head.tap.semantics)


def reads_last_layer(head: Head, manifest: Manifest) -> bool:
    """Whether it matters to the head which last state it is given."""
    return head.tap.pooling != "mlp_mean" and head.last_layer == manifest.model.total_layers


def as_published(head: Head, artefact: str, tap: Tap, *, last_layer_read: bool) -> Calibrated:
    """The head with its published threshold, which promises nothing of the false-positive rate.

    The published rule flags at the threshold itself, ours above it: so ours is the number below.
    """
    params = {
        **head.params,
        "threshold": np.array(np.nextafter(head.threshold, -math.inf)),
        "clean_scores": np.empty(0),
        "target_fpr": np.array(1.0),
        "fpr_interval": np.array([0.0, 1.0]),
    }
    settings = {
        "artefact": artefact,
        "base_model": head.base_model.model_id,
        "base_revision": head.base_model.revision,
        "default_threshold": head.threshold,
        "last_layer": tap.semantics if last_layer_read else "not read",
        "ignored": list(head.ignored),
        "sha256": dict(head.sha256),
    }
    return Calibrated(head.detector, "imported", params, (), 0, settings, tap)


def recalibrated(item: Calibrated, found: Collected[States], target_fpr: float) -> Calibrated:
    """The same with a threshold of one's own: split-conformal, as the head never saw the rows.

    Args:
        item: the head as published.
        found: states of clean rows, as the head's tap reads them.
        target_fpr: share of clean texts that may be flagged, in (0, 1).

    Raises:
        CalibrationError: too few clean texts for the target, or a score that is not finite.
    """
    detector = REGISTRY[item.name].bind(item.params, item.tap)
    scores = np.array(
        [
            reading.score
            for _, block in found.states.blocks()
            for reading in detector.score_pooled(list(map(np.ascontiguousarray, block)))
        ]
    )
    if not np.isfinite(scores).all():
        raise CalibrationError(
            f"{item.name}: {np.count_nonzero(~np.isfinite(scores))} clean rows have no finite "
            "score; expected a head of this model's. Export the model in float32"
        )
    groups = [prompt_group(found.rows[row]) for row in found.owner]
    clean = group_maxima(scores, group_codes(groups, len(scores)))
    params: dict[str, Array] = {
        **item.params,
        "threshold": np.array(conformal.threshold(clean, target_fpr)),
        "clean_scores": clean,
        "target_fpr": np.array(float(target_fpr)),
        "fpr_interval": conformal.fpr_interval(len(clean), target_fpr),
    }
    return replace(item, method="imported-conformal", params=params, rows=found.rows)


def notes(head: Head, manifest: Manifest) -> Sequence[str]:
    """What the user should know of this head in this bundle, a sentence each."""
    found = []
    if head.last_layer < manifest.model.layers:
        found.append(
            f"blocks above {head.last_layer} change no score of it: `layerguard export --layers "
            f"{head.last_layer}` makes a smaller graph with the same scores"
        )
    if manifest.model.dtype != "float32":
        found.append(
            f"the graph is {manifest.model.dtype}: scores differ a little from llm-siren's in "
            "float32"
        )
    if head.ignored:
        found.append(f"nothing reads these keys of its configuration: {', '.join(head.ignored)}")
    return found


def _base_faults(head: Head, manifest: Manifest) -> list[str]:
    """A model of another name has states that mean other things, though they may have the shape."""
    wanted, found = head.base_model.model_id, manifest.model.id
    if PurePosixPath(wanted).name.casefold() == PurePosixPath(found).name.casefold():
        return []
    remedy = (
        "Import it into that model's bundle, or say with --other-base that it is the same model by "
        "another name"
    )
    return [f"the head was trained on {wanted!r}; the bundle's model is {found!r}. {remedy}"]
