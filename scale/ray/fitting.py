"""``calibrate`` and ``evaluate``, whose passes of the graph run in the workers of a Ray cluster.

The caller's process reads the rows, fits and decides, as it does alone. A worker reads the same
chunk of rows as one process would, and returns what the readers of the pass keep of it: states for
a detector that is being fitted, scores otherwise. They are added in the order of the rows.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from layerguard.calibration.evaluation.evaluate import Evaluation
from layerguard.calibration.evaluation.evaluate import evaluate as evaluate_with
from layerguard.calibration.guard.calibrate import Calibration
from layerguard.calibration.guard.calibrate import calibrate as calibrate_with
from layerguard.calibration.rows.sources import RowSources
from layerguard.calibration.states.passes import Reader, added, chunks
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.model.backbone import Backbone
from layerguard.runtime.rows.jsonl import Row
from layerguard.scale.ray.reducing import Reducing
from layerguard.scale.ray.workers import Workers


def calibrate(bundle: str | Path, *, workers: Workers | None = None, **options: Any) -> Calibration:
    """Fit the detectors of a bundle to rows, and freeze them into it.

    The states of the rows are recorded in the caller's process, on its disk if they are large;
    ``cache`` names the folder.

    Args:
        bundle: folder of an exported model, at the same path on every node.
        workers: the processes that run the graph; None: one.
        options: as ``layerguard.calibration.calibrate`` takes them: ``clean``, ``labelled`` and so
            on. ``device`` and ``threads`` are those of the caller's process, which computes the
            canaries; by default as those of the workers.

    Raises:
        LayerGuardError: as ``layerguard.calibration.calibrate``.
    """
    workers = workers or Workers()
    read = _Pass(bundle, workers)
    return calibrate_with(bundle, read=read, **{**_own(workers), **options})


def evaluate(
    bundle: str | Path, rows: RowSources, *, workers: Workers | None = None, **options: Any
) -> Evaluation:
    """Score labelled rows and compare the scores with the labels.

    Args:
        bundle: folder of a calibrated bundle, at the same path on every node.
        rows: files of labelled rows, each measured separately; or rows, measured together.
        workers: the processes that run the graph; None: one.
        options: as ``layerguard.calibration.evaluate`` takes them: ``train``, ``seed`` and so on.
            ``device`` and ``threads`` are those of the caller's process, which replays the
            canaries; by default as those of the workers.

    Raises:
        LayerGuardError: as ``layerguard.calibration.evaluate``.
    """
    workers = workers or Workers()
    read = _Pass(bundle, workers)
    return evaluate_with(bundle, rows, read=read, **{**_own(workers), **options})


def _own(workers: Workers) -> dict[str, Any]:
    return {"device": workers.device, "threads": workers.threads}


class _Pass:
    """A ``Pass`` that runs the graph in workers."""

    def __init__(self, bundle: str | Path, workers: Workers) -> None:
        loaded = Bundle.load(Path(bundle))
        self._folder, self._id = loaded.path.resolve(), loaded.id
        self._workers = workers

    def __call__(
        self,
        backbone: Backbone,
        rows: Sequence[Row],
        readers: Sequence[Reader],
        description: str,
    ) -> tuple[str, ...]:
        del backbone  # the workers have their own
        reductions = tuple(reader.reduction for reader in readers)
        make = Reducing(self._folder, self._id, self._workers, reductions)
        parts = self._workers.results(make, list(chunks(rows)))
        return added(rows, readers, parts, description)
