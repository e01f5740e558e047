"""Recorded states: in memory up to a size limit, beyond it in a temporary file.

The file has no name: the system frees it when the process ends, even if the process is killed. It
is read with ``pread`` instead of a memory map, so that pages read earlier do not count as memory of
the process. A block of the file is [layers, rows, width]: a block, or one layer of it, is
contiguous.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np

from layerguard.calibration.states.blockwise import rows_at_once
from layerguard.runtime.errors import InputError, MachineError
from layerguard.runtime.types import Array

MEMORY_BYTES = 512 << 20
"""Size limit of a recording in memory."""

_ITEM = np.dtype(np.float32).itemsize


class Recording:
    """States of rows, written once from first to last and then read as ``States``."""

    def __init__(
        self, rows: int, folder: Path | None = None, memory_bytes: int | None = None
    ) -> None:
        """Prepare a recording of ``rows`` rows.

        Args:
            rows: expected number; long texts may give more, unreadable rows fewer.
            folder: folder of the temporary file (default: the system's folder for such files).
            memory_bytes: size limit in memory (default: ``MEMORY_BYTES``).

        Raises:
            InputError: the folder is missing, or no file can be created in it.
        """
        self._expected = rows
        self._folder = Path(folder or tempfile.gettempdir())
        self._memory_bytes = MEMORY_BYTES if memory_bytes is None else memory_bytes
        self._file: IO[bytes] | None = None
        self._held: list[Array] = []
        self._sizes: list[int] = []
        self._layers = self._width = 0
        if folder is not None:
            self._open().close()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, layers, width."""
        return sum(self._sizes), self._layers, self._width

    @property
    def on_disk(self) -> bool:
        """Whether the states are in a file."""
        return self._file is not None

    def append(self, states: Array) -> None:
        """Append a copy of rows, float32 [rows, layers, width].

        Raises:
            MachineError: the disk has too little free space; the message says how much is needed.
        """
        if not self._sizes:
            self._layers, self._width = states.shape[1:]
            self._spill_if_over(max(self._expected, len(states)))
        step = rows_at_once(self._layers, self._width)
        for start in range(0, len(states), step):
            block = np.ascontiguousarray(states[start : start + step].swapaxes(0, 1), np.float32)
            self._sizes.append(block.shape[1])
            if self._file is None:
                self._held.append(block)
                self._spill_if_over(sum(self._sizes))
            else:
                self._write(block)

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """See ``States.blocks``."""
        start = 0
        for number, size in enumerate(self._sizes):
            if self._file is None:
                block = self._held[number]
            else:
                block = np.empty((self._layers, size, self._width), np.float32)
                self._read(block, start * self._layers)
            yield slice(start, start + size), block
            start += size

    def layer(self, index: int) -> Array:
        """See ``States.layer``."""
        states = np.empty((sum(self._sizes), self._width), np.float32)
        start = 0
        for number, size in enumerate(self._sizes):
            rows = states[start : start + size]
            if self._file is None:
                rows[:] = self._held[number][index]
            else:
                self._read(rows, start * self._layers + index * size)
            start += size
        return states

    def close(self) -> None:
        """Free memory and disk; the recording cannot be read afterwards."""
        self._held.clear()
        self._sizes.clear()
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _open(self) -> IO[bytes]:
        try:
            return tempfile.TemporaryFile(dir=self._folder, buffering=0)
        except OSError as error:
            raise InputError(
                f"--cache {self._folder}: {error.strerror}; expected a folder in which files can "
                "be created"
            ) from error

    def _spill_if_over(self, rows: int) -> None:
        """Move all states to a file if ``rows`` rows exceed the size limit in memory."""
        size = rows * self._layers * self._width * _ITEM
        if size <= self._memory_bytes:
            return
        free = shutil.disk_usage(self._folder).free
        if size > free:
            raise MachineError(self._disk_full(free, size))
        self._file = self._open()
        for block in self._held:
            self._write(block)
        self._held.clear()

    def _write(self, block: Array) -> None:
        assert self._file is not None
        left = block.data.cast("B")
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            rows = max(self._expected, sum(self._sizes))
            size = rows * self._layers * self._width * _ITEM
            free = shutil.disk_usage(self._folder).free
            raise MachineError(f"{self._disk_full(free, size)} ({error.strerror})") from error

    def _read(self, into: Array, row: int) -> None:
        """Fill a contiguous array from the file, starting at row ``row`` of width floats."""
        assert self._file is not None
        left, offset = into.data.cast("B"), row * self._width * _ITEM
        while left:
            count = os.preadv(self._file.fileno(), [left], offset)
            if not count:
                raise MachineError(
                    f"the temporary file of states in {self._folder} is shorter than the data "
                    "written to it; calibrate again"
                )
            left, offset = left[count:], offset + count

    def _disk_full(self, free: int, size: int) -> str:
        return (
            f"{self._folder} has {free / 1e9:.1f} GB free; the states of {self._expected} rows "
            f"need {size / 1e9:.1f} GB while they are fitted. Give --cache a folder on a larger "
            "disk, or fewer rows"
        )
