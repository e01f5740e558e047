"""The code of ``docs/integrations.md``, run as it stands there."""

from typing import Any

from tests.docs.blocks import ROOT, blocks

PAGE = ROOT / "docs" / "integrations.md"


def run(framework: str, **names: Any) -> dict[str, Any]:
    """Run the blocks of one section and return their names.

    Args:
        framework: the section's title.
        names: what the page takes for granted, such as ``model``.
    """
    for block in section(framework, "python"):
        exec(compile(block, str(PAGE), "exec"), names)
    return names


def section(framework: str, language: str) -> list[str]:
    """The blocks of a section, as text."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start = lines.index(f"## {framework}") + 1
    end = next((i for i, line in enumerate(lines) if i > start and line[:3] == "## "), len(lines))
    return [block.text for block in blocks(PAGE, language) if start < block.line <= end]
