"""The Python of ``docs/scale.md``, run as it stands there."""

from tests.docs.blocks import ROOT, blocks

PAGE = ROOT / "docs" / "scale.md"


def run(number: int, **instead: str) -> None:
    """Run one of the Python blocks, counted from 0; ``instead`` has other words for some of it."""
    text = blocks(PAGE, "python")[number].text
    for old, new in instead.items():
        assert old.strip("_") in text
        text = text.replace(old.strip("_"), new)
    exec(compile(text, str(PAGE), "exec"), {})
