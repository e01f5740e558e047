"""The threads of the scheduler: their order, their end, and the end of the process."""

import subprocess
import sys
import threading
from functools import partial

from layerguard.runtime.server.worker import Worker


def test_calls_run_in_order_and_the_thread_ends_after_them() -> None:
    """It runs what it was given before it was closed."""
    worker = Worker("one")
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "one")
    done: list[int] = []
    for number in range(100):
        worker.submit(partial(done.append, number))
    worker.close()
    thread.join(30)
    assert not thread.is_alive()
    assert done == list(range(100))


def test_the_process_ends_after_the_call_that_runs() -> None:
    """A thread that is still in the model's code while Python ends could crash the process."""
    program = """
import threading, time
from layerguard.runtime.server.worker import Worker
began = threading.Event()
def call():
    began.set()
    time.sleep(0.5)
    print("done")
Worker("idle")
Worker("busy").submit(call)
began.wait()
"""
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")
