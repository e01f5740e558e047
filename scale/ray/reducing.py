"""What a worker does in a pass of the graph. It imports nothing that fits."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from layerguard.calibration.states.passes import Part, Reduction, reduced
from layerguard.runtime.model.backbone import Backbone
from layerguard.runtime.rows.jsonl import Row
from layerguard.scale.ray.bundles import same_bundle
from layerguard.scale.ray.workers import Work, Workers


@dataclass(frozen=True, slots=True)
class Reducing:
    """Makes the work of a pass in a worker.

    Raises:
        BundleError: the worker's bundle is not that of the caller.
    """

    folder: Path
    bundle_id: str
    workers: Workers
    reductions: tuple[Reduction, ...]

    def __call__(self) -> Work:
        """Load the bundle; the work reduces chunks of rows."""
        bundle = same_bundle(self.folder, self.bundle_id)
        backbone = Backbone(bundle, self.workers.device, self.workers.threads)

        def work(chunk: Sequence[Row]) -> Iterator[list[Part]]:
            yield reduced(backbone, chunk, self.reductions)

        return work
