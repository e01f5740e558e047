"""The value of ``--layers``: a number of blocks, or a trace file that suggests one."""

import json
from argparse import ArgumentTypeError
from pathlib import Path


def layers_argument(text: str) -> int:
    """Parse ``7`` or ``@FILE``, where FILE holds the output of ``layerguard trace --json``.

    The last line of the file has the suggested number.

    Raises:
        ArgumentTypeError: the text is neither, or the file suggests no number.
    """
    if not text.startswith("@"):
        if not text.isascii() or not text.isdigit():
            raise ArgumentTypeError(f"found {text!r}; expected a whole number, or @FILE")
        return int(text)
    try:
        lines = Path(text[1:]).read_text(encoding="utf-8").splitlines()
        layers = json.loads(lines[-1])["suggested_layers"]
    except OSError as error:
        raise ArgumentTypeError(f"{text[1:]}: {error.strerror}; expected a file") from error
    except (ValueError, RecursionError, IndexError, KeyError, TypeError) as error:
        raise _not_a_trace(text) from error
    if not isinstance(layers, int) or isinstance(layers, bool):
        raise _not_a_trace(text)
    return layers


def _not_a_trace(text: str) -> ArgumentTypeError:
    return ArgumentTypeError(
        f"{text[1:]}: the last line is not JSON with a whole number suggested_layers; expected "
        "the output of `layerguard trace BUNDLE --input ROWS --json`"
    )
