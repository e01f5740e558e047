"""A detector is named only in its own files and in the registries."""

from pathlib import Path

import pytest

from tests.structure.detector_names import ROOT, files, names_in_code

_HEADS = "reads the released heads of one detector, for the command import-siren"
_EVENT = "reads OpenAI's events, whose new text is the field delta"
_AUDIT = "audit shows the directions that one detector watches"

ALLOWED = {
    "csrc/layerguard_api.h": "declares lg_lcf_score, lg_siren_score and their structs: contract",
    "csrc/kernels/internal.h": "the table of kernels by instruction set has a column for each",
    "csrc/kernels/level.c": "fills that table in",
    "csrc/kernels/status.c": "a message names lg_siren_workspace, which is contract",
    "runtime/types.py": "a pooling has the name of the detector that reads it",
    "runtime/text/growing_message.py": _EVENT,
    "runtime/text/responses_form.py": _EVENT,
    "runtime/cli/__init__.py": "the command import-siren is contract",
    "calibration/__init__.py": "import_siren is public, as the command is",
    "calibration/commands/import_siren.py": _HEADS,
    "calibration/commands/arguments/import_siren.py": _HEADS,
    "calibration/artefacts/bundle_fit.py": _HEADS,
    "calibration/artefacts/config.py": _HEADS,
    "calibration/artefacts/import_head.py": _HEADS,
    "calibration/artefacts/released_head.py": _HEADS,
    "calibration/auditing/audit.py": _AUDIT,
    "calibration/auditing/weight_changes.py": _AUDIT,
    "calibration/commands/arguments/calibrate.py": "help names the detector that an option is for",
    "calibration/weights/adapter.py": "an error names the detector that needs the weights",
    "calibration/weights/tuning.py": "the same, and the names of the matrices that it watches",
}
"""Files that may name a detector. The list may only become shorter."""


def _found() -> set[str]:
    return {path.relative_to(ROOT).as_posix() for path in files() if names_in_code(path)}


def test_no_other_file_names_a_detector() -> None:
    """Code for a particular detector belongs in the detector's own files."""
    assert _found() - ALLOWED.keys() == set()


def test_the_allowed_files_still_need_it() -> None:
    """A file that no longer names a detector must be removed from the list."""
    assert ALLOWED.keys() - _found() == set()


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ('"""LCF is an example."""\n', False),
        ("x = 1  # as SIREN does\n", False),
        ('def f():\n    """Reads what LCF does."""\n    return 1\n', False),
        ('X = "lcf"\n', True),
        ("import siren\n", True),
        ('print("""weightwatch""")\n', True),
        ("f(\n    'lcf',\n)\n", True),
    ],
)
def test_prose_is_told_from_code(tmp_path: Path, source: str, *, named: bool) -> None:
    """In Python, docstrings and comments may name a detector."""
    path = tmp_path / "module.py"
    path.write_text(source, encoding="utf-8")
    assert names_in_code(path) == named


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("/* LCF\n and SIREN */ int x; // lcf\n", False),
        ("if (kind == lg_kind_lcf)\n", True),
        ('char const *name = "siren";\n', True),
    ],
)
def test_prose_is_told_from_code_in_c(tmp_path: Path, source: str, *, named: bool) -> None:
    """In C, comments may name a detector."""
    path = tmp_path / "file.c"
    path.write_text(source, encoding="utf-8")
    assert names_in_code(path) == named
