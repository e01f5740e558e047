"""Finds production files that name a detector outside its own files and the registries."""

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("csrc", "runtime", "calibration", "exporter", "integrations", "scale")
_SUFFIXES = (".py", ".c", ".h")
_NAME = re.compile(
    r"lcf|siren|weight_?watch"
    r"|(?-i:[\"'](delta|span)[\"']|\bSPAN\b|lg_kind_(delta|span)|import (delta|span)\b)",
    re.IGNORECASE,
)
"""``delta`` and ``span`` are words of mathematics and English too: they are looked for in quotes
and in the names of the code."""

_OWN = re.compile(
    r"csrc/detectors/(delta|lcf|siren|span|weightwatch)\.c"
    r"|csrc/kernels/(lcf|siren|span|weightwatch)\w*\.c"
    r"|runtime/(detectors|kernels)/(delta|lcf|siren|span|weightwatch)\.py"
    r"|calibration/(delta|lcf|siren|span|weightwatch)/.*"
    r"|exporter/fused/(delta|lcf|siren|span|weightwatch)\.py"
)
_REGISTRIES = (
    "csrc/detectors/registry.c",
    "csrc/detectors/registry.h",
    "calibration/registry.py",
    "exporter/fused/registry.py",
    "runtime/detectors/__init__.py",
)
_EXAMPLES = "csrc/examples/"
_C_PROSE = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)


def files(root: Path = ROOT) -> Iterator[Path]:
    """Production files that are neither a detector's own files nor registries."""
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            name = path.relative_to(root).as_posix()
            other = name in _REGISTRIES or _OWN.fullmatch(name) or name.startswith(_EXAMPLES)
            if path.suffix in _SUFFIXES and not other:
                yield path


def names_in_text(path: Path) -> bool:
    """Whether a file names a detector anywhere, including comments and docstrings."""
    return _NAME.search(path.read_text(encoding="utf-8")) is not None


def names_in_code(path: Path) -> bool:
    """Whether a file's code names a detector, apart from comments and docstrings."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return any(_NAME.search(part) for part in _python_code(text))
    return _NAME.search(_C_PROSE.sub(" ", text)) is not None


def _python_code(text: str) -> Iterator[str]:
    """The tokens of a source, without comments and docstrings."""
    statement = True
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            continue
        if token.type in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.NL):
            statement = statement or token.type != tokenize.NL
            continue
        if not (statement and token.type == tokenize.STRING):
            yield token.string
        statement = False
