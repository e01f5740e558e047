"""The inputs of a fused score graph: what ``docs/fused-graphs.md`` describes, from requests."""

from collections.abc import Sequence

import numpy as np

from layerguard.runtime.bundle.manifest import Manifest
from layerguard.runtime.text.distinct_rows import DistinctRows, Row
from layerguard.runtime.text.request import Request
from layerguard.runtime.text.tokens import TokenReader, Windows
from layerguard.runtime.types import Array, Tap, TokenSource


def token_sources(manifest: Manifest) -> list[TokenSource]:
    """What the detectors read, without repetition, in the manifest's order."""
    cards = manifest.detectors.values()
    taps = [Tap(card.view, card.pooling, card.semantics, card.limit) for card in cards]
    return list(dict.fromkeys(tap.source for tap in taps))


def read_fused(
    reader: TokenReader, sources: Sequence[TokenSource], request: Request
) -> tuple[Windows, ...]:
    """The windows of a request, one ``Windows`` for each source.

    Raises:
        InputError: as ``TokenReader.read_sources``.
    """
    by_source = reader.read_sources(request, sources)
    return tuple(by_source[source] for source in sources)


def fused_inputs(
    texts: Sequence[Sequence[Windows]], pad: int, *, reads_roles: bool
) -> dict[str, Array]:
    """The inputs of the graph for some texts that were read in one window each.

    Args:
        texts: of each text the result of ``read_fused``.
        pad: token id of padding.
        reads_roles: whether the graph has the input ``roles``.

    Returns:
        ``input_ids`` and ``attention_mask``, int64 [rows, tokens]; ``roles``, int64 [rows, tokens],
        if the graph has it; ``rows``, int64 [texts, sources], if there are several sources. Texts
        of several sources share rows.
    """
    rows: list[Row] = []
    places = None
    if len(texts[0]) == 1:
        rows = [_row(windows, reads_roles) for (windows,) in texts]
    else:
        distinct = DistinctRows()
        places = [[distinct.index(*_row(one, reads_roles)) for one in text] for text in texts]
        rows = distinct.rows
    shape = len(rows), max(len(ids) for ids, _ in rows)
    inputs = {
        "input_ids": np.full(shape, pad, np.int64),
        "attention_mask": np.zeros(shape, np.int64),
    }
    if reads_roles:
        inputs["roles"] = np.ones(shape, np.int64)
    for i, (ids, roles) in enumerate(rows):
        inputs["input_ids"][i, : len(ids)] = ids
        inputs["attention_mask"][i, : len(ids)] = 1
        if roles is not None:
            inputs["roles"][i, : len(ids)] = np.frombuffer(roles, np.uint8)
    if places is not None:
        inputs["rows"] = np.array(places, np.int64)
    return inputs


def is_one_window(text: Sequence[Windows]) -> bool:
    """Whether a fused graph can read a text: each source is one row."""
    return all(len(windows.windows) == 1 for windows in text)


def _row(windows: Windows, reads_roles: bool) -> Row:
    return windows.windows[0], windows.roles[0] if reads_roles and windows.roles else None
