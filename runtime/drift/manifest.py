"""The manifest of a drift monitor: what ``manifest.json`` says, as frozen types."""

import json
from dataclasses import asdict, dataclass
from typing import Literal

from layerguard.runtime.bundle.manifest import FileCard
from layerguard.runtime.bundle.schema import decode, parse
from layerguard.runtime.drift.base import Base

SCHEMA = 1
"""Version of the manifest that this release writes, and the newest that it reads."""

WRITER = "layerguard drift fit"
_MOST_TRAITS = 256

RegressorName = Literal["random_forest", "gradient_boosting", "ridge"]


@dataclass(frozen=True, slots=True)
class TraitCard:
    """One trait: the names of its poles, and how well a probe told them apart at the layer."""

    name: str
    positive: str
    negative: str
    probe_accuracy: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """A regressor on perturbations that its fit never saw, pooled, at the limit."""

    regressor: RegressorName
    balanced_accuracy: float
    auroc: float
    false_negative_rate: float
    false_positive_rate: float


@dataclass(frozen=True, slots=True)
class CalibrationCard:
    """What the monitor was fitted on.

    ``separation`` gives, by state index, the score of each layer that was considered; it is empty
    where the layer was named by the user.
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
    """The whole of a monitor's ``manifest.json``.

    ``layer`` is a state index (see ``layerguard.runtime.types``); ``prompts`` are read, in order,
    as one user turn each; ``threshold`` is the limit tau on predicted misalignment.
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
        """The canonical JSON: sorted keys, so the same manifest gives the same bytes."""
        text = json.dumps(asdict(self), sort_keys=True, indent=1, allow_nan=False)
        return text.encode() + b"\n"


def read_monitor_manifest(data: bytes) -> tuple[MonitorManifest | None, list[str]]:
    """The manifest in ``data`` and every fault found; no manifest where there is a fault."""
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
        found = f"manifest.json has schema {schema}; this release reads up to {SCHEMA}"
        return None, [f"{found}: {remedy}"]
    faults: list[str] = []
    manifest = parse(MonitorManifest, value, "manifest.json", faults)
    if faults:
        return None, faults
    assert isinstance(manifest, MonitorManifest)
    faults += _contradictions(manifest)
    return (None, faults) if faults else (manifest, [])


def _contradictions(manifest: MonitorManifest) -> list[str]:
    """Values that have the right type and cannot be true together."""
    layers = manifest.base.model.layers
    names = [trait.name for trait in manifest.traits]
    checks = (
        (manifest.schema >= 1, f"schema is {manifest.schema}; expected 1 to {SCHEMA}"),
        (1 <= manifest.layer <= layers, f"layer is {manifest.layer}; expected 1 to {layers}"),
        (
            0 < manifest.threshold < 1,
            f"threshold is {manifest.threshold}; expected a share between 0 and 1",
        ),
        (bool(manifest.prompts), "prompts is empty; expected the evaluation prompts"),
        (
            1 <= len(names) <= _MOST_TRAITS and len(set(names)) == len(names),
            f"traits are {len(names)}, {len(set(names))} different; expected 1 to {_MOST_TRAITS}",
        ),
    )
    return [f"manifest.json: {fault}" for fine, fault in checks if not fine]
