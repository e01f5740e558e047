"""Loads a guard, or runs a bundle's graphs, in a process of its own first, within a deadline.

A graph, a tokenizer and a chat template are programs, and a hostile one may not end. A process can
be ended from outside; a thread within onnxruntime cannot.
"""

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from layerguard.runtime.bundle import Bundle
from layerguard.runtime.bundle.manifest import GraphCard
from layerguard.runtime.errors import BundleError, InputError, LayerGuardError
from layerguard.runtime.model.session import Device, Session
from layerguard.runtime.text.request import request
from layerguard.runtime.text.tokens import TokenReader

_LOAD = """
import json, sys
from layerguard.runtime import Guard
path, arguments = json.loads(sys.argv[1])
Guard.load(path, **arguments)
"""

_RUN = """
import json, sys
from layerguard.runtime.trial import run_graphs
path, arguments = json.loads(sys.argv[1])
run_graphs(path, **arguments)
"""


def load_in_time(path: Path, arguments: Mapping[str, Any], timeout: float) -> None:
    """Check that ``Guard.load(path, **arguments)`` ends, well or with an error, in another process.

    Args:
        path: the bundle's folder.
        arguments: keyword arguments of ``Guard.load``, as JSON types.
        timeout: seconds until the process is ended, more than 0; its start takes part of them.

    Raises:
        BundleError: loading did not end in time, or the process crashed.
        InputError: ``timeout`` is not a positive number.
    """
    _try(_LOAD, path, arguments, timeout)


def run_in_time(path: Path, device: Device, threads: int, timeout: float) -> None:
    """Check that ``run_graphs`` ends, well or with an error, in another process.

    For bundles that no guard is loaded from, such as those without detectors. Arguments and errors
    are those of ``load_in_time`` and ``run_graphs``.
    """
    _try(_RUN, path, {"device": device, "threads": threads}, timeout)


def run_graphs(path: str, device: Device, threads: int) -> None:
    """Read a short text and run each graph of a bundle once on it, with zeros for other inputs.

    Args:
        path: the bundle's folder.
        device: where the graphs run.
        threads: threads of one operator; 0 lets ONNX Runtime choose.

    Raises:
        BundleError: the bundle is invalid.
        MachineError: onnxruntime is missing, or the device is unavailable.
    """
    bundle = Bundle.load(path)
    with suppress(InputError):  # the chat template may refuse the text
        TokenReader(bundle).read(request("a quiet garden"), {"prompt"})
    for card in bundle.manifest.graphs.values():
        with suppress(LayerGuardError):  # whoever uses the graph gets its faults
            _run_graph(bundle, card, device, threads)


def _run_graph(bundle: Bundle, card: GraphCard, device: Device, threads: int) -> None:
    opened = partial(bundle.opened, card.file)
    session = Session(bundle.path / card.file, device, threads, opened)
    feeds = {}
    for name in session.inputs:
        dtype, sides = session.input_type(name)
        feeds[name] = np.zeros([1 if side is None else side for side in sides], dtype)
    feeds["attention_mask"] += 1
    session.run(session.outputs, feeds)


def _try(program: str, path: Path, arguments: Mapping[str, Any], timeout: float) -> None:
    if not (isinstance(timeout, int | float) and 0 < timeout < math.inf):
        raise InputError(f"timeout: found {timeout!r}; expected seconds, more than 0")
    call = json.dumps([str(path.absolute()), arguments])
    try:
        code = subprocess.run(  # noqa: S603  this program with its own arguments
            [sys.executable, "-P", "-c", program, call],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=timeout,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired as error:
        fault = (
            f"it was not loaded within {timeout:g} s: a graph, tokenizer or template may not end. "
            "Allow more time if the machine is slow; do not load it without a limit unless you "
            "trust it"
        )
        raise BundleError(path, [fault]) from error
    if code < 0:
        fault = f"loading it ended a process by signal {-code}; do not load it unless you trust it"
        raise BundleError(path, [fault])
