"""A page as a reader's browser sees it: tables, charts, links and scripts."""

import base64
import hashlib
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

_URL_ATTRIBUTES = {"src", "href", "srcset", "action", "data", "poster", "xlink:href", "background"}


@dataclass
class ParsedPage(HTMLParser):
    """What a page holds.

    Attributes:
        tags: every tag, in order.
        urls: the values of attributes that a browser would fetch or follow.
        inline: names of event handlers and inline styles, which the policy would refuse.
        tables: for each table its cells by row, headings first.
        headings: the texts of the headings of sections.
        charts: the charts; swatches of legends are left out.
        scripts: the texts of the scripts.
        styles: the texts of the style sheets.
        policy: the content security policy.
        text: all text that is shown.
    """

    source: str
    tags: list[str] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)
    inline: list[str] = field(default_factory=list)
    tables: list[list[list[str]]] = field(default_factory=list)
    headings: list[str] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)
    styles: list[str] = field(default_factory=list)
    policy: str = ""
    text: str = ""

    def __post_init__(self) -> None:
        """Parse the page."""
        super().__init__(convert_charrefs=True)
        self._open: list[str] = []
        self.feed(self.source)
        self.close()
        charts = re.findall(r'<svg[^>]*class="chart".*?</svg>', self.source, re.DOTALL)
        self.charts = [ET.fromstring(chart) for chart in charts]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag with its attributes."""
        self.tags.append(tag)
        self._open.append(tag)
        values = dict(attrs)
        self.urls += [value or "" for name, value in attrs if name in _URL_ATTRIBUTES]
        self.inline += [name for name in values if name == "style" or name.startswith("on")]
        if values.get("http-equiv") == "Content-Security-Policy":
            self.policy = values["content"] or ""
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "h2":
            self.headings.append("")
        elif tag in ("script", "style"):
            (self.scripts if tag == "script" else self.styles).append("")

    def handle_endtag(self, tag: str) -> None:
        """Close a tag; void elements are not open."""
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        """Put text where it belongs."""
        inside = self._open[-1] if self._open else ""
        if inside in ("script", "style"):
            (self.scripts if inside == "script" else self.styles)[-1] += data
            return
        self.text += data
        if inside in ("td", "th"):
            self.tables[-1][-1][-1] += data
        elif inside == "h2":
            self.headings[-1] += data

    def table(self, first_heading: str) -> list[list[str]]:
        """The rows of the only table whose first heading is this."""
        (found,) = [table for table in self.tables if table[0][0] == first_heading]
        return found[1:]


def check_page(source: str) -> ParsedPage:
    """Assert what holds for every page, and return the page.

    It fetches nothing; its policy allows its own style sheet and script alone; every chart has a
    title and a description; every table has headings, and all its rows have as many cells; ids are
    unique, and every link leads to one.
    """
    page = ParsedPage(source)
    assert not re.search(r"https?:|//|url\(|@import", re.sub(r"// .*", "", source))
    ids = re.findall(r'\bid="([^"]*)"', source)
    assert len(ids) == len(set(ids))
    assert {url.removeprefix("#") for url in page.urls} <= set(ids)
    assert not page.inline
    assert page.tags.count("script") == page.tags.count("style") == 1
    assert "default-src 'none'" in page.policy
    for directive, text in (("style-src", page.styles[0]), ("script-src", page.scripts[0])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in page.policy
    assert not {"iframe", "object", "embed", "form", "link", "img", "base"}.intersection(page.tags)
    for chart in page.charts:
        title, description = chart[0], chart[1]
        assert (title.tag, description.tag) == ("title", "desc")
        assert title.text
        assert description.text
    for table in page.tables:
        assert len({len(row) for row in table}) == 1
        assert all(table[0])
    return page
