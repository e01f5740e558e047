"""A hash that identifies a set of rows."""

import hashlib
import json
from collections.abc import Sequence

from layerguard.runtime.rows.jsonl import Row


def fingerprint(rows: Sequence[Row]) -> str:
    """The sha256 of a calibration set, in hex: its requests and labels, in order."""
    digest = hashlib.sha256()
    for row in rows:
        request = row.request
        content = [request.prompt, request.response, request.messages, request.tools, row.label]
        digest.update(json.dumps(content, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()
