"""All sections of the page of an evaluation, in their order."""

from collections.abc import Sequence

from layerguard.calibration.evaluation.analysis import Analysis, analyse
from layerguard.calibration.evaluation.domains import matrix_table
from layerguard.calibration.evaluation.evaluate import Evaluation
from layerguard.calibration.evaluation.page.comparison import comparison_section
from layerguard.calibration.evaluation.page.decisions import (
    agreement_section,
    confusion_section,
    p_value_section,
)
from layerguard.calibration.evaluation.page.errors import error_section, row_section
from layerguard.calibration.evaluation.page.ranking import ranking_section, score_section
from layerguard.calibration.evaluation.page.rates import rate_section
from layerguard.calibration.evaluation.page.summary import summary
from layerguard.calibration.evaluation.report import METRIC_NOTES, columns, metric_cells
from layerguard.calibration.report.page import Paragraph, Section, Table, page


def html_page(
    evaluation: Evaluation,
    analysis: Analysis,
    title: str,
    *,
    compared: Evaluation | None = None,
    texts: bool = True,
) -> str:
    """The whole page.

    Args:
        evaluation: what was measured.
        analysis: its statistics.
        title: title of the page.
        compared: a second bundle on the same rows.
        texts: whether to show the rows' texts.
    """
    sections = [summary(evaluation, analysis)]
    if evaluation.rows:
        sections.append(rate_section(evaluation, analysis))
        if analysis.rankings:
            sections.append(ranking_section(evaluation, analysis))
        sections.append(score_section(evaluation))
        sections.append(confusion_section(analysis.confusions))
        if analysis.p_values is not None:
            sections.append(p_value_section(analysis.p_values, evaluation.guard.target_fpr))
        sections.append(error_section(analysis, texts=texts))
        if analysis.agreement:
            sections.append(agreement_section(analysis.agreement))
        if compared is not None:
            both = (analysis, analyse(compared))
            sections.append(comparison_section((evaluation, compared), both, texts=texts))
    sections += _by_file(evaluation)
    if evaluation.rows:
        sections.append(row_section(evaluation.rows, texts=texts))
    return page(title, sections)


def _by_file(evaluation: Evaluation) -> Sequence[Section]:
    """The metrics of each file, and the false-positive rates by domain."""
    tables = [
        Table(
            columns(),
            [metric_cells(line) for line in result.figures],
            caption=f"{result.file}: {result.n} rows, {result.positives} harmful",
        )
        for result in evaluation.files
    ]
    sections = [Section("Metrics by file", [*tables, Paragraph(METRIC_NOTES)])]
    if evaluation.domains:
        table = Table(*matrix_table(evaluation.domains))
        sections.append(Section("False-positive rate by domain, per cent", [table]))
    return sections
