"""Every Python block of README and documentation names what there is."""

from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, blocks
from tests.docs.names import Checker

WITH_PYTHON = [page for page in PAGES if blocks(page, "python")]


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.name)
def test_every_block_names_what_there_is(page: Path) -> None:
    """It compiles, its imports resolve, and attributes and keyword arguments exist."""
    checker = Checker()
    for block in blocks(page, "python"):
        checker.read(block.text)
        assert checker.faults == [], block


@pytest.mark.parametrize(
    "line",
    [
        "import layerguard.nothing",
        "from layerguard.integrations.nothing import GuardMiddleware",
        "from layerguard.runtime import Gard",
        "from layerguard.runtime import Guard\nGuard.laod('guard/')",
        "from layerguard.runtime import Guard\nGuard.load('guard/').chekc('text')",
        "from layerguard.runtime import Guard\nGuard.load('guard/', devise='cpu')",
        "from layerguard.runtime import Guard\nGuard.load('guard/').check(promt='text')",
        "from layerguard.runtime import Guard\nGuard.load('g').check('t').readings['lcf'].skore",
        "from layerguard.runtime import Guard\nfor e in Guard.load('g').generate('p'):\n    e.txt",
        "from layerguard.runtime import Guard\nwith Guard.load('g').stream() as s:\n    s.pusch(1)",
        "from layerguard.runtime import Guard\nGuard.load('g').bundle.manifset",
    ],
)
def test_a_wrong_name_is_found(line: str) -> None:
    """A misspelt module, class, method, argument or field, also of what a call returns."""
    checker = Checker()
    checker.read(line)
    assert checker.faults
