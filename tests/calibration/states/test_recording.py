"""Recorded states: equal in memory and on disk, and no file remains."""

import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerguard.calibration.states import blockwise as states_module
from layerguard.calibration.states import recording as module
from layerguard.calibration.states.blockwise import ArrayStates, States
from layerguard.calibration.states.recording import MEMORY_BYTES, Recording
from layerguard.runtime.errors import InputError, MachineError
from layerguard.runtime.types import Array
from tests.calibration.synthetic import clean_states

Usage = namedtuple("Usage", "total used free")  # noqa: PYI024 - as shutil's


def recorded(states: Array, sizes: list[int], memory_bytes: int) -> Recording:
    """The rows, appended in parts of the given sizes and a remainder."""
    found = Recording(len(states), memory_bytes=memory_bytes)
    start = 0
    for size in [*sizes, len(states)]:
        if start < len(states) and size:
            found.append(states[start : start + size])
            start += size
    return found


def rows_of(states: States) -> Array:
    """All blocks, [n, layers, width]; checks the slices of rows."""
    parts, next_row = [], 0
    for rows, block in states.blocks():
        assert (rows.start, rows.stop) == (next_row, next_row + block.shape[1])
        assert block.dtype == np.float32
        next_row = rows.stop
        parts.append(block.swapaxes(0, 1).copy())
    return np.concatenate(parts)


@pytest.mark.parametrize("memory_bytes", [0, MEMORY_BYTES, 3 * 4 * 12 * 4])
@given(sizes=st.lists(st.integers(0, 8), max_size=5), at_once=st.sampled_from([1, 3, 1000]))
def test_what_was_appended_is_read(sizes: list[int], at_once: int, memory_bytes: int) -> None:
    """Blocks and layers are equal in memory, on disk, and after a move to disk."""
    states = clean_states(17, seed=3)
    with pytest.MonkeyPatch.context() as patch:
        for user in (module, states_module):
            patch.setattr(user, "rows_at_once", lambda *_: at_once)
        with recorded(states, sizes, memory_bytes) as found:
            assert found.on_disk == (memory_bytes < MEMORY_BYTES)
            assert found.shape == states.shape
            for either in (found, ArrayStates(states)):
                assert rows_of(either).tobytes() == states.tobytes()
                assert rows_of(either).tobytes() == states.tobytes()
                for layer in range(states.shape[1]):
                    assert (either.layer(layer) == states[:, layer]).all()


def test_more_rows_than_expected_move_to_disk() -> None:
    """A recording with more windows than expected rows moves to disk at the size limit."""
    states = clean_states(40, seed=0)
    with Recording(rows=2, memory_bytes=states[:20].nbytes) as found:
        found.append(states[:10])
        assert not found.on_disk
        found.append(states[10:40])
        assert found.on_disk
        assert rows_of(found).tobytes() == states.tobytes()


def test_states_of_half_precision_become_single() -> None:
    """Float16 states are recorded as float32."""
    states = clean_states(5, seed=0).astype(np.float16)
    with recorded(states, [], 0) as found:
        assert (found.layer(1) == states[:, 1].astype(np.float32)).all()


@pytest.mark.parametrize("memory_bytes", [0, MEMORY_BYTES])
def test_no_file_has_a_name_and_closing_frees_it(tmp_path: Path, memory_bytes: int) -> None:
    """The file has no name, so the folder stays empty."""
    before = _open_files()
    recording = Recording(9, tmp_path, memory_bytes)

    def interrupted() -> None:
        with recording:
            recording.append(clean_states(9, seed=0))
            assert not any(tmp_path.iterdir())
            assert _open_files() == before + (memory_bytes == 0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert _open_files() == before


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_killed_process_leaves_nothing(tmp_path: Path) -> None:
    """No file remains after SIGKILL."""
    source = (
        "import os, signal, sys; from pathlib import Path; import numpy as np\n"
        "from layerguard.calibration.states.recording import Recording\n"
        "found = Recording(4, Path(sys.argv[1]), 0); found.append(np.ones((4, 2, 8), np.float32))\n"
        "assert found.on_disk; os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", source, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not any(tmp_path.iterdir())


def test_a_disk_without_room_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first rows raise an error; the message has the size of all expected rows."""
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: Usage(9e9, 8e9, 1e9))
    found = Recording(20_000, tmp_path)
    with pytest.raises(MachineError, match=r"1\.0 GB free; the states of 20000 rows need 10\.8 GB"):
        found.append(np.zeros((1, 33, 4096), np.float32))


def test_a_disk_that_fills_up_is_an_error_of_ours(tmp_path: Path) -> None:
    """The message has the system's error and what to do."""
    source = (
        "import resource, signal, sys; from pathlib import Path; import numpy as np\n"
        "from layerguard.calibration.states.recording import Recording\n"
        "from layerguard.runtime.errors import MachineError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try: Recording(4, Path(sys.argv[1]), 0).append(np.ones((4, 2, 8), np.float32))\n"
        "except MachineError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", source, str(tmp_path)], check=True, capture_output=True, text=True
    )
    assert "Give --cache a folder on a larger disk" in done.stdout
    assert "File too large" in done.stdout


def test_a_folder_that_is_none_is_refused_at_once(tmp_path: Path) -> None:
    """A missing folder is refused before any graph runs."""
    with pytest.raises(InputError, match="absent: No such file or directory; expected a folder"):
        Recording(10, tmp_path / "absent")
