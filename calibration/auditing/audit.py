"""Compare a tuned model with its base: the layers that changed, and the texts that excite them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from layerguard.calibration.auditing.weight_changes import (
    Excitation,
    MatrixChange,
    beside_harmless,
    excitations,
    matrix_changes,
    strongest,
)
from layerguard.calibration.defaults import RANKS
from layerguard.calibration.rows.sources import RowSources, read_sources
from layerguard.calibration.weights.tuning import between
from layerguard.calibration.weightwatch.directions import directions
from layerguard.runtime.bundle import Bundle
from layerguard.runtime.errors import InputError
from layerguard.runtime.model.backbone import Backbone
from layerguard.runtime.model.session import Device


@dataclass(frozen=True, slots=True)
class Audit:
    """The changes between a base model and a tuned model.

    Attributes:
        matrices: the change of each matrix, in order of layers.
        excitations: the strongest directions with the texts that excite them; empty without a
            corpus.
        faults: one message for each row of the corpus that was not used.
    """

    matrices: tuple[MatrixChange, ...]
    excitations: tuple[Excitation, ...]
    faults: tuple[str, ...]

    @property
    def unusual(self) -> tuple[MatrixChange, ...]:
        """The matrices that changed by more than in every harmless fine-tune that was given."""
        return tuple(matrix for matrix in self.matrices if matrix.unusual)

    def above(self, share: float) -> tuple[MatrixChange, ...]:
        """The matrices whose relative change exceeds ``share`` or is NaN."""
        return tuple(matrix for matrix in self.matrices if not matrix.relative_change <= share)


def audit(
    base: str | Path,
    tuned: str | Path,
    *,
    bundle: str | Path | None = None,
    corpus: RowSources = (),
    harmless: Sequence[str | Path] = (),
    ranks: int = RANKS,
    strongest_directions: int = 5,
    texts: int = 5,
    device: Device = "cpu",
    threads: int = 0,
) -> Audit:
    """Compare two checkpoints, and find the texts that excite the change.

    Args:
        base: the model before tuning: a folder with config.json and safetensors, or a GGUF file.
        tuned: the tuned model in the same form, or the folder of a LoRA adapter.
        bundle: bundle of the tuned model; needs ``corpus``.
        corpus: files or rows of texts to search; needs ``bundle``.
        harmless: fine-tunes of the same base that are known to be harmless, in the form of
            ``tuned``; each matrix gets the range of its changes in them.
        ranks: number of singular values of each matrix.
        strongest_directions: number of directions to search texts for.
        texts: number of examples at each end of a direction.
        device: where the graph runs.
        threads: threads of one operator; 0 lets ONNX Runtime choose.

    Raises:
        InputError: a folder or row file cannot be read, the two models differ in architecture, or
            bundle and corpus are not given together.
        CalibrationError: no matrix changed, or no row of the corpus could be read.
        BundleError: the bundle is invalid.
    """
    if bool(bundle) != bool(corpus):
        missing = "corpus" if bundle else "bundle"
        raise InputError(f"found no {missing}; expected bundle and corpus together")
    tuning = between(Path(base), Path(tuned))
    rows = read_sources(corpus)
    opened = Bundle.load(Path(bundle)) if bundle else None
    others = [between(Path(base), Path(one)) for one in harmless]
    matrices = beside_harmless(matrix_changes(tuning, ranks), others)
    if opened is None:
        return Audit(tuple(matrices), (), ())
    model = opened.manifest.model
    watched = directions(tuning, model.total_layers, ranks=ranks, kept=model.layers)
    backbone = Backbone(opened, device, threads)
    top = strongest(watched, strongest_directions)
    excited, unread = excitations(backbone, rows.good, top, texts)
    return Audit(tuple(matrices), tuple(excited), (*rows.faults, *unread))
