"""Show an audit as tables for a terminal, as JSON, or as an HTML page with charts."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from layerguard.calibration.auditing.weight_changes import Example, Excitation, MatrixChange
from layerguard.calibration.report.charts import Line, line_chart
from layerguard.calibration.report.page import Paragraph, Section, Table, page
from layerguard.runtime.checkpoints.places import PARTS
from layerguard.runtime.cli.table import render, shorten

_TEXT = 160
"""Shown characters of a text."""

_PLOTTED = 5
_HEADER = ("matrix", "relative change", "largest", "stable rank", "directions", "their share")
_NOTES = (
    "Relative change: Frobenius norm of tuned minus base, as a share of the base's. Largest: "
    "largest singular value of the change. Stable rank: over how many directions it spreads. "
    "Directions: singular values above the noise of rounding, up to the number asked for; their "
    "share: of the change's squared norm."
)


def most_changed(matrices: Sequence[MatrixChange]) -> list[MatrixChange]:
    """The matrices by relative change, largest first."""
    return sorted(matrices, key=lambda matrix: -matrix.relative_change)


def text_tables(
    matrices: Sequence[MatrixChange], excitations: Sequence[Excitation], shown: int
) -> str:
    """The ``shown`` matrices that changed most, and the texts of every direction."""
    parts = [
        render(_header(matrices), [_cells(matrix) for matrix in most_changed(matrices)[:shown]])
    ]
    for item in excitations:
        rows = [_example_cells(end, example) for end, example in _ends(item)]
        parts.append(f"{_heading(item)}\n" + render(("text", "end", "cosine", "role"), rows))
    return "\n\n".join(parts)


def json_objects(
    matrices: Sequence[MatrixChange], excitations: Sequence[Excitation]
) -> list[dict[str, Any]]:
    """One object for each matrix, then one for each direction; ``kind`` distinguishes them."""
    objects = [{"kind": "matrix", **asdict(matrix)} for matrix in matrices]
    for item in excitations:
        short = asdict(item)
        for example in (*short["along"], *short["against"]):
            example["text"] = shorten(example["text"], _TEXT)
        objects.append({"kind": "direction", **short})
    return objects


def html_page(
    title: str, matrices: Sequence[MatrixChange], excitations: Sequence[Excitation]
) -> str:
    """The whole audit as one HTML page."""
    ranked = most_changed(matrices)
    depth = max(matrix.layer for matrix in matrices)
    by_place = {(matrix.part, matrix.layer): matrix.relative_change for matrix in matrices}
    compared = any(matrix.harmless for matrix in matrices)
    changes = [_by_layer(part, part, by_place, depth) for part in PARTS]
    if compared:
        most = {(m.part, m.layer): m.harmless[1] for m in matrices if m.harmless}
        changes += [_by_layer(f"{part}, harmless at most", part, most, depth) for part in PARTS]
    spectra = [Line(_name(matrix), matrix.singular_values) for matrix in ranked[:_PLOTTED]]
    weights = Section(
        "What changed",
        [
            line_chart(
                "Relative change by layer",
                changes,
                x_label="layer",
                y_label="change, share of the base",
                first=1,
                percent=True,
            ),
            line_chart(
                f"Singular values of the {len(spectra)} matrices that changed most",
                spectra,
                x_label="rank",
                y_label="singular value",
            ),
            Paragraph(_NOTES),
            *([Paragraph(harmless_sentence(matrices))] if compared else []),
            Table(_header(matrices), [_cells(matrix) for matrix in ranked]),
        ],
    )
    texts = [
        Section(
            _heading(item),
            [
                Table(
                    ("text", "end", "cosine", "role"),
                    [_example_cells(end, example) for end, example in _ends(item)],
                    text_columns=(0, 1, 3),
                    wide_columns=(0,),
                )
            ],
        )
        for item in excitations
    ]
    return page(title, [weights, *texts])


def harmless_sentence(matrices: Sequence[MatrixChange]) -> str:
    """Which matrices changed by more than in every harmless fine-tune."""
    unusual = [_name(matrix) for matrix in most_changed(matrices) if matrix.unusual]
    found = f"{len(unusual)} of {len(matrices)} matrices changed by more than in every harmless"
    return f"{found} fine-tune" + (f": {', '.join(unusual)}." if unusual else ".")


def _by_layer(label: str, part: str, values: Mapping[tuple[str, int], float], depth: int) -> Line:
    return Line(label, [values.get((part, layer), 0.0) for layer in range(1, depth + 1)])


def _header(matrices: Sequence[MatrixChange]) -> tuple[str, ...]:
    return (*_HEADER, "harmless") if any(matrix.harmless for matrix in matrices) else _HEADER


def _name(matrix: MatrixChange) -> str:
    return f"{matrix.part} {matrix.layer}"


def _cells(matrix: MatrixChange) -> tuple[str, ...]:
    values = dict.fromkeys(f"{100 * value:.3g}" for value in matrix.harmless or ())
    return (
        _name(matrix),
        f"{100 * matrix.relative_change:.3g} %",
        f"{max(matrix.singular_values, default=0.0):.4g}",
        f"{matrix.stable_rank:.1f}",
        str(len(matrix.singular_values)),
        f"{100 * matrix.leading_share:.0f} %",
        *([f"{' to '.join(values)} %"] if values else []),
    )


def _heading(item: Excitation) -> str:
    return (
        f"Layer {item.layer}, {item.part} u{item.rank} (singular value {item.singular_value:.4g})"
    )


def _ends(item: Excitation) -> list[tuple[str, Example]]:
    return [("along", e) for e in item.along] + [("against", e) for e in item.against]


def _example_cells(end: str, example: Example) -> tuple[str, ...]:
    return shorten(example.text, _TEXT), end, f"{example.cosine:+.3f}", example.role
