"""The value of ``--layers``."""

from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from layerguard.exporter.layers_argument import layers_argument


@pytest.mark.parametrize(
    "content", ["", "no json", "[7]", '{"layers": 7}', '{"suggested_layers": "7"}',
                '{"suggested_layers": true}', '{"suggested_layers": 7.5}'],
)  # fmt: skip
def test_a_file_that_is_not_a_trace_is_refused(tmp_path: Path, content: str) -> None:
    """The message has the command that prints a trace."""
    path = tmp_path / "trace.json"
    path.write_text(content)
    with pytest.raises(ArgumentTypeError, match="layerguard trace BUNDLE --input ROWS --json"):
        layers_argument(f"@{path}")


@pytest.mark.parametrize("text", ["x", "-1", "1.5", "@no/such/file", ""])
def test_a_value_that_is_neither_number_nor_file_is_refused(text: str) -> None:
    """A whole number is accepted."""
    assert layers_argument("12") == 12
    with pytest.raises(ArgumentTypeError, match="expected"):
        layers_argument(text)
