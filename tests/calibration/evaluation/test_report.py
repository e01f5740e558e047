"""The table of metrics for a terminal."""

from layerguard.calibration.evaluation.report import text_table
from layerguard.calibration.evaluation.results import FileResult, MethodMetrics

RESULT = FileResult(
    file="test",
    n=1000,
    positives=70,
    figures=(
        MethodMetrics("siren", 0.8156, 0.8362, 0.9514, 0.412, 0.0034, 0.3679),
        MethodMetrics("a & b", auroc=0.5),
    ),
)


def test_figures_are_per_cent_and_missing_ones_a_dash() -> None:
    """All metrics but AUROC are per cent; missing ones are a dash."""
    for figure in ("81.6", "83.6", "0.951", "41.2", "0.3", "36.8", "0.500", "-"):
        assert figure in text_table([RESULT])
