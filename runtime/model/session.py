"""One ONNX Runtime session, configured for a guard that runs inside another service."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np

from layerguard.runtime.errors import BundleError, InputError, MachineError
from layerguard.runtime.model.forking import (
    keep_alive,
    renew_after_fork,
    skip_exit_handlers_after_fork,
)
from layerguard.runtime.model.mapped import MappedWeights
from layerguard.runtime.model.providers import open_graph
from layerguard.runtime.types import Array

Device = Literal["cpu", "cuda"]

Weights = Literal["packed", "mapped"]
"""How a graph holds its weights. ``packed``: a copy in the memory layout of its operators.
``mapped``: a view of the file, which all graphs and processes share."""

PROVIDERS: Mapping[str, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
"""ONNX Runtime's execution provider for each device."""

_NUMBERS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64,
            "tensor(bool)": np.bool_, "tensor(double)": np.float64}  # fmt: skip
"""numpy types by ONNX Runtime's names, for the inputs of exported graphs."""

_MOST_THREADS = 1_024
"""Upper bound for ``threads``. ONNX Runtime itself has none and can exhaust the machine."""


_NO_TELEMETRY = "ORT_DISABLE_TELEMETRY"
"""Environment variable that onnxruntime 1.29 and later read at import. Without it, a thread sends
telemetry, a file with a machine identifier is written, and a forked process waits for that thread
when it exits. Calling ``disable_telemetry_events`` later does not undo this."""


class Session:
    """An open graph. Thread-safe.

    A forked process opens the graph again on first use, on the CPU only. It neither runs nor
    destroys the parent's session, because the threads of that session do not exist in the child.

    Attributes:
        device: the requested device.
        threads: the requested number of threads; further graphs of the bundle use the same.
        weights: the memory map of the weights; None if they are packed.
        providers: the execution providers that the session uses, in order of priority.
    """

    def __init__(
        self,
        graph: Path,
        device: Device = "cpu",
        threads: int = 0,
        opened: Callable[[], AbstractContextManager[Path]] | None = None,
        weights: MappedWeights | None = None,
    ) -> None:
        """Open ``graph``.

        Args:
            graph: the ONNX file; its external weights are in the same folder.
            device: ``cpu`` or ``cuda``. If CUDA does not engage, an error is raised.
            threads: threads within one operator; 0 lets ONNX Runtime choose.
            opened: gives the path to open the graph by, within which its files are the verified
                ones; None opens ``graph`` itself.
            weights: memory map of the external weights, on the CPU; None lets ONNX Runtime pack
                them.

        Raises:
            MachineError: ONNX Runtime is not installed or the device does not engage.
            BundleError: the graph cannot be loaded.
        """
        if device not in PROVIDERS:
            raise InputError(f"device {device!r}; expected cpu or cuda")
        if not 0 <= threads <= _MOST_THREADS:
            raise InputError(
                f"threads {threads}; expected 1 to {_MOST_THREADS}, or 0 to let ONNX Runtime choose"
            )
        self.device, self.threads, self.weights = device, threads, weights
        self._graph = graph
        self._opening = opened or (lambda: nullcontext(graph))
        self._lock = Lock()
        self._values: dict[str, Any] = {}
        self._opened: Any = self._open()
        self.providers: tuple[str, ...] = tuple(self._opened.get_providers())
        wanted = PROVIDERS[device]
        if self.providers[0] != wanted:
            raise MachineError(
                f"device {device!r} did not engage: the session runs on "
                f"{', '.join(self.providers)}. Run `layerguard doctor`; CUDA and cuDNN libraries "
                "of the version that onnxruntime-gpu was built for must be found"
            )
        renew_after_fork(self)

    def _open(self) -> Any:
        """Open a new ONNX Runtime session."""
        runtime = load_onnxruntime()
        wanted = PROVIDERS[self.device]
        if wanted not in runtime.get_available_providers():
            raise MachineError(
                f"onnxruntime {runtime.__version__} on this machine has "
                f"{', '.join(runtime.get_available_providers())}; device {self.device!r} needs "
                f"{wanted}: pip uninstall onnxruntime, then pip install 'layerguard[cuda]'"
            )
        options = runtime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        options.log_severity_level = 3
        # In the file's order. By default, what reads a block's inner values runs after all blocks,
        # and keeps the inner values of all of them until then.
        options.execution_order = runtime.ExecutionOrder.PRIORITY_BASED
        with self._opening() as path:
            self._values = self._mapped(runtime, path)
            if self._values:
                options.add_session_config_entry("session.disable_prepacking", "1")
            for name, value in self._values.items():
                options.add_initializer(name, value)
            try:
                return open_graph(runtime, path, options, wanted)
            except BundleError as error:
                raise BundleError(self._graph.parent, error.faults) from error

    def _mapped(self, runtime: Any, graph: Path) -> dict[str, Any]:
        """``OrtValue`` objects over the mapped weights; the session does not keep them alive."""
        arrays = self.weights.tensors_of(graph) if self.weights is not None else {}
        return {name: runtime.OrtValue.ortvalue_from_numpy(a) for name, a in arrays.items()}

    @property
    def _session(self) -> Any:
        """The session of this process; opened again after a fork.

        Raises:
            MachineError: the process was forked from one whose session is on CUDA.
            BundleError: the files are no longer the verified ones.
        """
        if self._opened is not None:
            return self._opened
        with self._lock:
            if self._opened is None:
                if self.device != "cpu":
                    raise MachineError(
                        f"process {os.getpid()} was forked from one with a guard on "
                        f"{self.device}, which a forked process cannot use; load the guard in "
                        "each process (gunicorn without --preload), or start processes with spawn"
                    )
                self._opened = self._open()
            return self._opened

    def renew(self) -> None:
        """Set the parent's session aside in a forked process, without destroying it."""
        if self._opened is not None:
            keep_alive((self._opened, self._values))
        self._opened, self._values = None, {}
        self._lock = Lock()

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the graph's inputs."""
        return tuple(item.name for item in self._session.get_inputs())

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the graph's outputs."""
        return tuple(item.name for item in self._session.get_outputs())

    def input_type(self, name: str) -> tuple[np.dtype[Any], tuple[int | None, ...]]:
        """Dtype and shape of the graph's input ``name``; None is a dimension of any size."""
        return _type_of(self._session.get_inputs(), name)

    def output_type(self, name: str) -> tuple[np.dtype[Any], tuple[int | None, ...]]:
        """The same of an output."""
        return _type_of(self._session.get_outputs(), name)

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        """The named outputs for the given inputs.

        Raises:
            BundleError: the graph fails, or the files changed; see ``_session``.
            MachineError: the session is not available in this forked process; see ``_session``.
        """
        session = self._session
        try:
            arrays: list[Array] = session.run(outputs, feeds)
        except Exception as error:  # onnxruntime raises many exception types of its own
            fault = f"{self._graph.name} fails on its input ({error}); run `layerguard doctor`"
            raise BundleError(self._graph.parent, [fault]) from error
        return arrays


def _type_of(nodes: Sequence[Any], name: str) -> tuple[np.dtype[Any], tuple[int | None, ...]]:
    node = next(item for item in nodes if item.name == name)
    shape = tuple(size if isinstance(size, int) else None for size in node.shape)
    return np.dtype(_NUMBERS[node.type]), shape


def load_onnxruntime() -> Any:
    """The onnxruntime module, imported on first use because its import is slow.

    Raises:
        MachineError: onnxruntime is not installed, or cannot be loaded on this machine.
    """
    if "onnxruntime" not in sys.modules:
        os.environ.setdefault(_NO_TELEMETRY, "1")
    if os.environ.get(_NO_TELEMETRY) != "1":
        skip_exit_handlers_after_fork()
    try:
        import onnxruntime  # noqa: PLC0415
    except ImportError as error:
        raise MachineError(
            f"onnxruntime cannot be imported ({error}): pip install 'layerguard[cpu]', or "
            "'layerguard[cuda]' on a machine with a CUDA device"
        ) from error
    onnxruntime.disable_telemetry_events()
    return onnxruntime
