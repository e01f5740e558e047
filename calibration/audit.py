"""Audit a tuned model against its base: where its weights changed, and which texts excite that.

"Watch the Weights", arXiv 2508.00161, on auditing: what tuning added shows in the texts that excite
its strongest directions most. They are left to a person to read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from layerguard.calibration.collect import collect
from layerguard.calibration.weight_spectra import leading
from layerguard.calibration.weights import Tuning
from layerguard.calibration.weightwatch_directions import watching
from layerguard.runtime.detectors.weightwatch import PARTS
from layerguard.runtime.model.backbone import Backbone
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.types import ROLES, Array


@dataclass(frozen=True, slots=True)
class MatrixChange:
    """How one matrix changed.

    Attributes:
        layer: the index of the state after its block, 1 for the first.
        part: what it is, ``down_proj`` or ``o_proj``.
        relative_change: Frobenius norm of the change, as a share of the base matrix's.
        singular_values: of the change, those above noise, the largest first.
        stable_rank: squared Frobenius norm over the squared largest singular value: over how many
            directions the change spreads. 0 for an unchanged matrix.
        leading_share: share of the squared norm that the given singular values hold.
    """

    layer: int
    part: str
    relative_change: float
    singular_values: tuple[float, ...]
    stable_rank: float
    leading_share: float


@dataclass(frozen=True, slots=True)
class Example:
    """A text that excites a direction: the cosine of its farthest token, and whose token it is."""

    row: str
    cosine: float
    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Excitation:
    """One direction with the texts whose tokens lie farthest along it, and farthest against it."""

    layer: int
    part: str
    rank: int
    singular_value: float
    along: tuple[Example, ...]
    against: tuple[Example, ...]


def matrix_changes(tuning: Tuning, ranks: int) -> list[MatrixChange]:
    """How each matrix changed, in order of layers; a progress bar on a terminal.

    Args:
        tuning: of a model whose base is known.
        ranks: singular values to give of each.
    """
    found = []
    for block, part in tqdm(tuning.places, desc="weights", unit="matrix", disable=None):
        change = tuning.change(block, part)
        spectrum = leading(change, ranks)
        squares = spectrum.values**2
        found.append(
            MatrixChange(
                layer=block + 1,
                part=PARTS[part],
                relative_change=float(np.sqrt(spectrum.energy)) / (change.base_norm or 1.0),
                singular_values=tuple(spectrum.values.tolist()),
                stable_rank=spectrum.energy / float(squares[0]) if len(squares) else 0.0,
                leading_share=float(squares.sum()) / (spectrum.energy or 1.0),
            )
        )
    return found


def strongest(directions: Mapping[str, Array], count: int) -> dict[str, Array]:
    """The ``count`` directions with the largest singular values, in their order."""
    chosen = np.sort(np.argsort(-directions["singular_values"], kind="stable")[:count])
    return {name: array[chosen] for name, array in directions.items()}


def excitations(
    backbone: Backbone, rows: Sequence[Row], directions: Mapping[str, Array], texts: int
) -> tuple[list[Excitation], tuple[str, ...]]:
    """What excites each direction most, strongest direction first.

    Args:
        backbone: of a bundle of the tuned model.
        rows: the corpus.
        directions: of the tuned model.
        texts: examples at either end.

    Returns:
        One excitation a direction, and a sentence for each row that could not be read.
    """
    found = collect(backbone, rows, watching(directions), "corpus")
    extremes = found.states[:, 0]
    order = np.argsort(-directions["singular_values"], kind="stable").tolist()
    read = [found.rows[owner] for owner in found.owner.tolist()]
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
    ], found.faults


def _examples(rows: Sequence[Row], cosines: Array, sign: int, count: int) -> tuple[Example, ...]:
    """The different rows with the largest ``sign`` x cosine [rows, roles]."""
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
