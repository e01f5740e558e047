"""Passes of the graph over rows, once for all readers: some store states, others only score.

A pass has two steps. A ``Reduction`` makes of the states what its reader keeps of them; it can be
pickled and runs where the states are, which may be another process. The ``Reader`` then adds what
was kept, in the order of the rows.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tqdm import tqdm

from layerguard.runtime.errors import InputError
from layerguard.runtime.model.backbone import Backbone, PooledStates
from layerguard.runtime.rows.jsonl import Row
from layerguard.runtime.text.tokens import TokenReader
from layerguard.runtime.types import Tap

CHUNK = 128
"""Requests that are read at a time; the backbone sorts them into batches of similar length."""


class Reduction(Protocol):
    """Reduces the pooled states of rows to what a reader keeps of them."""

    @property
    def taps(self) -> Collection[Tap]:
        """The taps that it reads of every row."""

    def __call__(self, rows: Sequence[Row], pooled: PooledStates, reader: TokenReader) -> Any:
        """What is kept of some rows; it can be pickled. ``reader`` is the bundle's tokenizer."""


class Reader(Protocol):
    """Reads rows during a pass of the graph."""

    @property
    def reduction(self) -> Reduction:
        """What is kept of the rows."""

    def add(self, rows: Sequence[Row], kept: Any) -> list[str]:
        """Add what the reduction kept of the next rows; one message for each unused row."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of a chunk that were read together, or one that could not be read.

    Attributes:
        start: number of the first row in the chunk.
        stop: number after the last row.
        kept: what each reduction kept of them.
        fault: why the row could not be read; empty if it was.
    """

    start: int
    stop: int
    kept: tuple[Any, ...] = ()
    fault: str = ""


Pass = Callable[[Backbone, Sequence[Row], Sequence[Reader], str], tuple[str, ...]]
"""Runs the graph over rows: ``read_once``, or the same in several processes."""


def read_once(
    backbone: Backbone, rows: Sequence[Row], readers: Sequence[Reader], description: str
) -> tuple[str, ...]:
    """Run the graph over all rows, once for all readers; shows a progress bar on a terminal.

    Args:
        backbone: backbone of the bundle that is calibrated.
        rows: rows to read.
        readers: readers of the states.
        description: label of the progress bar.

    Returns:
        One message for each row that could not be read, or that a reader did not use.
    """
    reductions = [reader.reduction for reader in readers]
    parts = (reduced(backbone, chunk, reductions) for chunk in chunks(rows))
    return added(rows, readers, parts, description)


def chunks(rows: Sequence[Row]) -> Iterator[tuple[Row, ...]]:
    """The rows in chunks of ``CHUNK``, in order."""
    for start in range(0, len(rows), CHUNK):
        yield tuple(rows[start : start + CHUNK])


def reduced(
    backbone: Backbone, chunk: Sequence[Row], reductions: Sequence[Reduction]
) -> list[Part]:
    """What the reductions keep of one chunk.

    It is read together, or row by row if the chat template rejects one of its rows.
    """
    taps = {tap for reduction in reductions for tap in reduction.taps}

    def read(start: int, stop: int) -> Iterator[Part]:
        some = chunk[start:stop]
        try:
            pooled = backbone.read([row.request for row in some], taps)
        except InputError as error:
            if len(some) == 1:
                yield Part(start, stop, fault=f"{some[0].place}: {error}")
                return
            for place in range(start, stop):
                yield from read(place, place + 1)
        else:
            kept = tuple(reduction(some, pooled, backbone.reader) for reduction in reductions)
            yield Part(start, stop, kept)

    return list(read(0, len(chunk)))


def added(
    rows: Sequence[Row],
    readers: Sequence[Reader],
    parts: Iterator[Sequence[Part]] | Sequence[Sequence[Part]],
    description: str,
) -> tuple[str, ...]:
    """Give the readers what was kept of all chunks, in order; the result of a pass."""
    faults: list[str] = []
    with tqdm(total=len(rows), desc=description, unit="row", disable=None) as bar:
        for chunk, of_chunk in zip(chunks(rows), parts, strict=True):
            for part in of_chunk:
                if part.fault:
                    faults.append(part.fault)
                    continue
                for reader, kept in zip(readers, part.kept, strict=True):
                    faults += reader.add(chunk[part.start : part.stop], kept)
            bar.update(len(chunk))
    return tuple(dict.fromkeys(faults))
