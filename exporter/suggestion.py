"""How many blocks to keep, as the command line says it: a number, or a trace that suggests one."""

import json
from argparse import ArgumentTypeError
from pathlib import Path


def layers_argument(text: str) -> int:
    """``7``, or ``@FILE`` with what ``layerguard trace --json`` printed: its last line suggests it.

    Raises:
        ArgumentTypeError: it is neither, or the file suggests nothing.
    """
    if not text.startswith("@"):
        if not text.isascii() or not text.isdigit():
            raise ArgumentTypeError(f"found {text!r}; expected a whole number, or @FILE")
        return int(text)
    try:
        lines = Path(text[1:]).read_text(encoding="utf-8").splitlines()
        found = json.loads(lines[-1])["suggested_layers"]
    except OSError as error:
        raise ArgumentTypeError(f"{text[1:]}: {error.strerror}; expected a file") from error
    except (ValueError, RecursionError, IndexError, KeyError, TypeError) as error:
        raise _not_a_trace(text) from error
    if not isinstance(found, int) or isinstance(found, bool):
        raise _not_a_trace(text)
    return found


def _not_a_trace(text: str) -> ArgumentTypeError:
    return ArgumentTypeError(
        f"{text[1:]} ends in no line of JSON with a whole number suggested_layers; expected what "
        "`layerguard trace BUNDLE --input ROWS --json` prints"
    )
