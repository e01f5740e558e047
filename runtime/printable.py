"""Escapes characters that can steer a terminal or forge a line, in text that comes from outside."""

import unicodedata

_JOINERS = "\u200c\u200d"
"""Of the invisible characters, those that scripts and emoji need."""


def printable(text: str, keep: str = "") -> str:
    r"""``text`` with its control characters escaped as in Python: ``\x1b`` for ESC.

    Escaped are control and format characters (ESC, CR, LF, the bidirectional controls), line and
    paragraph separators, lone surrogates and unassigned characters. Those in ``keep`` are not.
    """
    if text.isprintable():
        return text
    return "".join(c if _is_harmless(c) or c in keep else ascii(c)[1:-1] for c in text)


def _is_harmless(character: str) -> bool:
    is_space = unicodedata.category(character) == "Zs"
    return character.isprintable() or is_space or character in _JOINERS
