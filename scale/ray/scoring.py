"""Scores the rows of files in the workers of a Ray cluster."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerguard.runtime import Guard
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.rows.check_rows import check_rows
from layerguard.runtime.rows.jsonl import no_usable_row
from layerguard.scale.ray.bundles import same_bundle
from layerguard.scale.ray.outputs import encoded, written
from layerguard.scale.ray.splits import Split, splits
from layerguard.scale.ray.summary import Scored
from layerguard.scale.ray.workers import Work, Workers


def score(
    bundle: str | Path,
    rows: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    workers: Workers | None = None,
) -> Scored:
    """Write the verdicts on the rows of files, in their order.

    Workers read the files themselves, a few hundred lines or a row group of Parquet at a time. A
    row that cannot be read is reported in ``faults``, and the others are scored. Verdicts are those
    of ``layerguard score``; only whether traffic drifts is judged by each worker for its own rows.

    Args:
        bundle: folder of a calibrated bundle, or the name of an installed one.
        rows: files of rows, JSON lines or, if their names end in ``.parquet``, Parquet.
        out: file to write: JSON lines as ``layerguard score --json`` prints them, or Parquet with
            the columns id, flagged, status, reason, p_value, tokens, truncated, scores by detector
            and verdict, which is JSON.
        workers: the processes; None: one.

    Raises:
        InputError: a file cannot be read or written, or has no good row.
        BundleError: the bundle is invalid, or another one on some node.
        MachineError: a file is Parquet and pyarrow is not installed.
    """
    workers, target = workers or Workers(), Path(out)
    loaded = Bundle.load(bundle)
    named = [rows] if isinstance(rows, str | Path) else rows
    paths = [Path(path) for path in named]
    parts = splits(paths)
    make = _Scoring(loaded.path.resolve(), loaded.id, workers, target)
    total, good = Scored(), dict.fromkeys(paths, 0)
    with written(target) as write:
        for path, content, part in workers.results(make, parts):
            write(content)
            good[path] += part.rows
            total = total.merged(part)
        for path, count in good.items():
            if not count:
                own = [fault for fault in total.faults if fault.startswith(f"{path}:")]
                raise no_usable_row(path, own)
    return total


@dataclass(frozen=True, slots=True)
class _Scoring:
    """Makes the work of scoring in a worker."""

    folder: Path
    bundle_id: str
    workers: Workers
    out: Path

    def __call__(self) -> Work:
        same_bundle(self.folder, self.bundle_id)
        guard = Guard.load(self.folder, device=self.workers.device, threads=self.workers.threads)

        def work(split: Split) -> Iterator[tuple[Path, Any, Scored]]:
            for read in split.rows():
                faults = list(read.faults)
                verdicts = list(check_rows(guard, read.good, faults, "", show_progress=False))
                yield split.named, encoded(self.out, verdicts), Scored.of(verdicts, faults)

        return work
