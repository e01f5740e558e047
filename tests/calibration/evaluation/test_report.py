"""Reports: escaped, self-contained, one line for each method."""

from layerguard.calibration.evaluation.domains import Cell
from layerguard.calibration.evaluation.report import html_page, text_table
from layerguard.calibration.evaluation.results import FileResult, MethodMetrics

RESULT = FileResult(
    file="<script>alert(1)</script>",
    n=1000,
    positives=70,
    figures=(
        MethodMetrics("siren", 0.8156, 0.8362, 0.9514, 0.412, 0.0034, 0.3679),
        MethodMetrics("a & b", auroc=0.5),
    ),
)


def test_page_escapes_what_it_is_given() -> None:
    """Names of files and methods are escaped."""
    page = html_page([RESULT], [], 'Bundle "x" <b>')
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<td>a &amp; b</td>" in page
    assert "Bundle &#34;x&#34; &lt;b&gt;" in page


def test_page_stands_alone() -> None:
    """The page has no script, no link and no external file."""
    page = html_page([RESULT], [], "Bundle")
    assert not any(word in page for word in ("http", "src=", "href=", "<link", "url("))


def test_figures_are_per_cent_and_missing_ones_a_dash() -> None:
    """All metrics but AUROC are per cent; missing ones are a dash."""
    for text in (text_table([RESULT]), html_page([RESULT], [], "Bundle")):
        for figure in ("81.6", "83.6", "0.951", "41.2", "0.3", "36.8", "0.500", "-"):
            assert figure in text


def test_page_shows_what_each_domains_thresholds_flag() -> None:
    """The page has a row for each set of thresholds and a column for each domain, escaped."""
    cells = [
        Cell("all traffic", "chat", 80, 0.05),
        Cell("all traffic", "<code>", 40, 0.2),
        Cell("chat", "chat", 80, 0.01),
        Cell("chat", "<code>", 40, 0.325),
    ]
    page = html_page([RESULT], cells, "Bundle")
    assert "<th>chat (80)</th><th>&lt;code&gt; (40)</th>" in page
    assert "<tr><td>chat</td><td>1.0</td><td>32.5</td></tr>" in page
