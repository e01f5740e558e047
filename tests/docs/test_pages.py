"""The pages hang together: links, C examples, benchmarks, and a site that builds strictly."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from layerguard.runtime import cli
from tests.docs.blocks import PAGES, ROOT, Block, blocks
from tests.docs.run import ORDER

C_BLOCKS = [block for page in PAGES for block in blocks(page, "c")]
FORMS = sorted(ROOT.glob("*.md"))


@pytest.mark.parametrize("block", C_BLOCKS, ids=str)
def test_the_c_examples_compile(block: Block, tmp_path: Path) -> None:
    """As C11, without a warning, against the header of this tree."""
    source = tmp_path / "example.c"
    source.write_text(block.text)
    flags = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"]
    command = ["cc", *flags, f"-I{ROOT / 'csrc'}", "-c", source, "-o", tmp_path / "example.o"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_there_are_c_examples() -> None:
    """The page of the library and its tutorial."""
    assert {block.page.name for block in C_BLOCKS} == {"c-library.md", "service-c.md"}


@pytest.mark.parametrize("page", [*FORMS, *PAGES], ids=lambda page: page.name)
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    """Every relative link is a file; mkdocs looks at the anchors."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), target


def test_the_command_line_page_has_the_real_overview() -> None:
    """As the program prints it."""
    assert cli._overview() in (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")


def test_every_benchmark_is_on_the_page_of_measurements() -> None:
    """With the command that prints it."""
    page = (ROOT / "docs" / "measurements.md").read_text(encoding="utf-8")
    scripts = sorted((ROOT / "tests" / "bench").glob("bench_*.py"))
    assert scripts
    assert [s.stem for s in scripts if f"python -m tests.bench.{s.stem}" not in page] == []


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """Strictly: no dead link or anchor, no page outside the navigation, every name documented."""
    pytest.importorskip("mkdocs", reason="the site needs layerguard[docs]")
    names = tmp_path / "names" / "layerguard"
    names.mkdir(parents=True)
    for name in ("runtime", "calibration", "exporter", "integrations", "scale"):
        (names / name).symlink_to(ROOT / name)
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    config = config.replace("build/names", str(names.parent)).replace(
        "docs_dir: docs", f"docs_dir: {ROOT / 'docs'}"
    )
    (tmp_path / "mkdocs.yml").write_text(config.replace("site_dir: build/docs", "site_dir: site"))
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict"],
        cwd=tmp_path,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    html = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "site").rglob("*.html"))
    for public in ("runtime.Guard.check", "calibration.lcf.fit", "engines.vllm.saved"):
        assert re.search(rf'id="layerguard\.(runtime\.)?{re.escape(public)}"', html), public
    assert not re.findall(r'(?:src|href)="https?://[^"]*"', html)


def test_every_page_with_blocks_to_run_is_run() -> None:
    """By ``make docs-run``, but for pages that hold examples of benchmarks and set-up alone."""
    runnable = {
        page.relative_to(ROOT / "docs").as_posix()
        for page in PAGES
        if page.is_relative_to(ROOT / "docs")
        and any(block.not_run is None for block in blocks(page, "sh", "python"))
    }
    assert runnable - {"measurements.md"} == set(ORDER)
