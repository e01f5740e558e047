"""Hashes that identify texts and sets of rows without storing them."""

import hashlib
import json
from collections.abc import Iterable, Sequence

import numpy as np

from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.types import Array


def fingerprint(rows: Sequence[Row]) -> str:
    """The sha256 of a calibration set, in hex: its requests and labels, in order."""
    digest = hashlib.sha256()
    for row in rows:
        request = row.request
        content = [request.prompt, request.response, request.messages, request.tools, row.label]
        digest.update(json.dumps(content, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def text_hashes(texts: Iterable[str]) -> Array:
    """The first eight bytes of each text's sha256, int64 [n]."""
    digests = b"".join(hashlib.sha256(text.encode()).digest()[:8] for text in texts)
    return np.frombuffer(digests, dtype="<i8").astype(np.int64)
