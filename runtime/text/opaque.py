"""Recognises encoded bytes that are no text: signatures and encrypted reasoning.

The interfaces return reasoning with a signature, or encrypted, and expect it back with the next
request. Whoever made it checks it, and a model does not read it as it stands. The place is not
enough to believe that: a stranger may write any text there.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

_PLACES = {
    "thinking": "signature",
    "redacted_thinking": "data",
    "reasoning": "encrypted_content",
}
"""By type of part, the key of what only its maker reads."""

_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]+|[A-Za-z0-9_-]+)={0,2}\Z")

_WINDOW, _LEAST_DISTINCT = 64, 28
"""Of 64 random characters of base64, 40.6 are distinct on average, with a standard deviation of
2.5. Words that are written without spaces, also with a capital letter each, have up to 25."""

_READABLE = re.compile(r"[^\W_][^\x00-\x08\x0e-\x1f\x7f-\x9f\ufffd]{31}")
"""Readable characters in a row. In random bytes a run of 32 has a probability below 1e-11."""


def opaque_key(part: Mapping[str, Any]) -> str | None:
    """The key of a part whose value is no text; None if it has none.

    Args:
        part: a part of a content, or an item of a list beside it.
    """
    kind = part.get("type")
    key = _PLACES.get(kind) if isinstance(kind, str) else None
    return key if key is not None and is_opaque(part.get(key)) else None


def is_opaque(value: Any) -> bool:
    """Whether a value is base64 that reads like no text, and whose bytes read like none either.

    Both alphabets are accepted, with and without padding. Fewer than 64 characters are too few to
    tell, and count as text.
    """
    if not isinstance(value, str) or not _BASE64.match(value):
        return False
    code = value.rstrip("=")
    if len(code) < _WINDOW:
        return False
    starts = [*range(0, len(code) - _WINDOW, _WINDOW // 2), len(code) - _WINDOW]
    if any(len(set(code[start : start + _WINDOW])) < _LEAST_DISTINCT for start in starts):
        return False
    try:
        data = base64.b64decode(code + "=" * (-len(code) % 4), altchars=_signs(code), validate=True)
    except binascii.Error:
        return False
    return not _READABLE.search(data.decode(errors="replace"))


def _signs(code: str) -> bytes:
    return b"-_" if "-" in code or "_" in code else b"+/"
