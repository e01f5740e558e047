"""The weight changes of a tuned model, and the texts that excite them.

"Watch the Weights", arXiv 2508.00161, on auditing: the texts that most excite the strongest
directions show what tuning added. A person reads and judges them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from layerguard.calibration.states.collect import collect
from layerguard.calibration.weights.spectra import leading
from layerguard.calibration.weights.tuning import Tuning
from layerguard.calibration.weightwatch.directions import watching
from layerguard.runtime.checkpoints.places import PARTS
from layerguard.runtime.model.backbone import Backbone
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.types import ROLES, Array


@dataclass(frozen=True, slots=True)
class MatrixChange:
    """The change of one matrix.

    Attributes:
        layer: index of the state after its block, 1 for the first block.
        part: ``down_proj`` or ``o_proj``.
        relative_change: Frobenius norm of the change over that of the base matrix.
        singular_values: singular values of the change above noise, in descending order.
        stable_rank: squared Frobenius norm over the squared largest singular value, an effective
            number of directions; 0 for an unchanged matrix.
        leading_share: share of the squared Frobenius norm in ``singular_values``, 0 to 1.
        harmless: least and largest relative change of this matrix in harmless fine-tunes of the
            same base; None if none were given.
    """

    layer: int
    part: str
    relative_change: float
    singular_values: tuple[float, ...]
    stable_rank: float
    leading_share: float
    harmless: tuple[float, float] | None = None

    @property
    def unusual(self) -> bool:
        """Whether it changed by more than in every harmless fine-tune that was given."""
        return self.harmless is not None and not self.relative_change <= self.harmless[1]


@dataclass(frozen=True, slots=True)
class Example:
    """A text that excites a direction, the extreme cosine of its tokens, and that token's role."""

    row: str
    cosine: float
    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Excitation:
    """One direction, and the texts with the largest and the smallest cosines to it."""

    layer: int
    part: str
    rank: int
    singular_value: float
    along: tuple[Example, ...]
    against: tuple[Example, ...]


def matrix_changes(tuning: Tuning, ranks: int) -> list[MatrixChange]:
    """The change of each matrix, in order of layers; shows a progress bar on a terminal.

    Args:
        tuning: weight changes of a model whose base is known.
        ranks: number of singular values of each matrix.
    """
    changes = []
    for block, part in tqdm(tuning.places, desc="weights", unit="matrix", disable=None):
        change = tuning.change(block, part)
        spectrum = leading(change, ranks)
        squares = spectrum.values**2
        changes.append(
            MatrixChange(
                layer=block + 1,
                part=PARTS[part],
                relative_change=float(np.sqrt(spectrum.energy)) / (change.base_norm or 1.0),
                singular_values=tuple(spectrum.values.tolist()),
                stable_rank=spectrum.energy / float(squares[0]) if len(squares) else 0.0,
                leading_share=float(squares.sum()) / (spectrum.energy or 1.0),
            )
        )
    return changes


def beside_harmless(
    changes: Sequence[MatrixChange], harmless: Sequence[Tuning]
) -> list[MatrixChange]:
    """The changes with the range that the same matrices have in harmless fine-tunes.

    A matrix that a fine-tune leaves alone counts as a change of 0.
    """
    others = [
        {(change.layer, change.part): change.relative_change for change in matrix_changes(one, 1)}
        for one in harmless
    ]
    found = []
    for change in changes:
        values = [other.get((change.layer, change.part), 0.0) for other in others]
        found.append(replace(change, harmless=(min(values), max(values)) if values else None))
    return found


def strongest(directions: Mapping[str, Array], count: int) -> dict[str, Array]:
    """The ``count`` directions with the largest singular values, in the order of the input."""
    chosen = np.sort(np.argsort(-directions["singular_values"], kind="stable")[:count])
    return {name: array[chosen] for name, array in directions.items()}


def excitations(
    backbone: Backbone, rows: Sequence[Row], directions: Mapping[str, Array], texts: int
) -> tuple[list[Excitation], tuple[str, ...]]:
    """Find the texts that excite each direction most, strongest direction first.

    Args:
        backbone: backbone of a bundle of the tuned model.
        rows: the corpus.
        directions: directions of the tuned model.
        texts: number of examples at each end of a direction.

    Returns:
        One excitation for each direction, and one message for each row that could not be read.
    """
    recorded = collect(backbone, rows, watching(directions), "corpus")
    extremes = recorded.states[:, 0]
    order = np.argsort(-directions["singular_values"], kind="stable").tolist()
    read = [recorded.rows[owner] for owner in recorded.owner.tolist()]
    return [
        Excitation(
            layer=int(directions["layers"][k]),
            part=PARTS[directions["parts"][k]],
            rank=int(directions["ranks"][k]),
            singular_value=float(directions["singular_values"][k]),
            along=_examples(read, extremes[:, :, 1, k], 1, texts),
            against=_examples(read, extremes[:, :, 0, k], -1, texts),
        )
        for k in order
    ], recorded.faults


def _examples(rows: Sequence[Row], cosines: Array, sign: int, count: int) -> tuple[Example, ...]:
    """Rows with different texts and the largest ``sign`` times cosine; cosines [rows, roles]."""
    role = np.argmax(sign * cosines, axis=1)
    farthest = cosines[np.arange(len(rows)), role]
    examples: dict[str, Example] = {}
    for i in np.argsort(-sign * farthest, kind="stable").tolist():
        text = rows[i].request.content()
        if text not in examples:
            examples[text] = Example(rows[i].id, float(farthest[i]), ROLES[role[i]], text)
        if len(examples) == count:
            break
    return tuple(examples.values())
