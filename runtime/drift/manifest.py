"""The manifest of a checkpoint monitor: the contents of ``manifest.json`` as frozen types."""

import json
from dataclasses import asdict, dataclass
from typing import Literal

from layerguard.runtime.bundle.manifest import FileCard
from layerguard.runtime.bundle.schema import decode, parse
from layerguard.runtime.drift.base import Base

SCHEMA = 1
"""Schema version that this release writes, and the newest version that it reads."""

WRITER = "layerguard drift fit"
_MOST_TRAITS = 256

RegressorName = Literal["random_forest", "gradient_boosting", "ridge"]


@dataclass(frozen=True, slots=True)
class TraitCard:
    """One trait: the names of its two poles, and the accuracy of a probe that separates them."""

    name: str
    positive: str
    negative: str
    probe_accuracy: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """Scores of one regressor on held-out perturbations, pooled, at the threshold tau."""

    regressor: RegressorName
    balanced_accuracy: float
    auroc: float
    false_negative_rate: float
    false_positive_rate: float


@dataclass(frozen=True, slots=True)
class CalibrationCard:
    """The data that the monitor was fitted on.

    ``separation`` maps the state index of each candidate layer to its score. It is empty if the
    user chose the layer.
    """

    traits_sha256: str
    runs_sha256: str
    checkpoints: int
    runs: int
    perturbations: tuple[str, ...]
    separation: dict[str, float]
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class MonitorManifest:
    """The contents of a monitor's ``manifest.json``.

    ``layer`` is a state index (see ``layerguard.runtime.types``). Each of ``prompts`` is read as
    one user turn, in this order. ``threshold`` is tau, the threshold on predicted misalignment.
    """

    schema: int
    kind: Literal["drift monitor"]
    base: Base
    layer: int
    traits: tuple[TraitCard, ...]
    prompts: tuple[str, ...]
    threshold: float
    regressor: RegressorName
    step_aware: bool
    calibration: CalibrationCard
    versions: dict[str, str]
    files: dict[str, FileCard]

    def to_bytes(self) -> bytes:
        """Canonical JSON with sorted keys: the same manifest gives the same bytes."""
        text = json.dumps(asdict(self), sort_keys=True, indent=1, allow_nan=False)
        return text.encode() + b"\n"


def read_monitor_manifest(data: bytes) -> tuple[MonitorManifest | None, list[str]]:
    """Parse ``data``; return the manifest and all faults. With any fault the manifest is None."""
    try:
        value = decode(data)
    except (ValueError, RecursionError) as error:
        return None, [f"manifest.json is not JSON ({error}); run `{WRITER}` again"]
    kind = value.get("kind") if isinstance(value, dict) else None
    if kind != "drift monitor":
        expected = f"expected 'drift monitor', as `{WRITER}` writes it"
        return None, [f"manifest.json is of kind {repr(kind)[:60]}; {expected}"]
    schema = value.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        remedy = f"upgrade layerguard, or run `{WRITER}` with this release"
        fault = f"manifest.json has schema {schema}; this release reads up to {SCHEMA}"
        return None, [f"{fault}: {remedy}"]
    faults: list[str] = []
    manifest = parse(MonitorManifest, value, "manifest.json", faults)
    if faults:
        return None, faults
    assert isinstance(manifest, MonitorManifest)
    faults += _contradictions(manifest)
    return (None, faults) if faults else (manifest, [])


def _contradictions(manifest: MonitorManifest) -> list[str]:
    """Values of the right type that are out of range or contradict each other."""
    layers = manifest.base.model.layers
    names = [trait.name for trait in manifest.traits]
    distinct = len(set(names))
    checks = (
        (manifest.schema >= 1, f"schema is {manifest.schema}; expected 1 to {SCHEMA}"),
        (1 <= manifest.layer <= layers, f"layer is {manifest.layer}; expected 1 to {layers}"),
        (
            0 < manifest.threshold < 1,
            f"threshold is {manifest.threshold}; expected a share between 0 and 1",
        ),
        (bool(manifest.prompts), "prompts is empty; expected the evaluation prompts"),
        (
            1 <= len(names) <= _MOST_TRAITS and distinct == len(names),
            f"found {len(names)} traits, {distinct} different names; expected 1 to {_MOST_TRAITS}",
        ),
    )
    return [f"manifest.json: {fault}" for fine, fault in checks if not fine]
