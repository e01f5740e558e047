"""One ONNX Runtime session, opened so that an always-on guard behaves."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np

from layerguard.runtime.errors import BundleError, InputError, MachineError
from layerguard.runtime.model.forking import (
    keep_for_ever,
    renew_after_fork,
    skip_exit_handlers_after_fork,
)
from layerguard.runtime.model.mapped import MappedWeights
from layerguard.runtime.model.providers import open_graph
from layerguard.runtime.types import Array

Device = Literal["cpu", "cuda"]

Weights = Literal["packed", "mapped"]
"""How a graph holds its weights: a copy of its own in the order in which its operators read them,
or a view of the file, which all graphs and processes share."""

PROVIDERS: Mapping[str, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
"""ONNX Runtime's name of what runs on each device."""

_NUMBERS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64,
            "tensor(bool)": np.bool_, "tensor(double)": np.float64}  # fmt: skip
"""ONNX Runtime's names of the types that graphs of ours take."""

_MOST_THREADS = 1_024
"""ONNX Runtime starts as many as it is told, until the machine gives in."""


_NO_TELEMETRY = "ORT_DISABLE_TELEMETRY"
"""Since 1.29 onnxruntime reads it when it is imported: without it a thread sends events, a file
with an identifier of the machine is written, and a forked process waits for that thread at its end.
Later ``disable_telemetry_events`` undoes none of this."""


class Session:
    """A graph ready to run; safe to call from many threads.

    In a forked process it is opened anew when it is first used, on the CPU. The threads of the
    parent's session are not there, so that one is neither run nor destroyed.

    Attributes:
        device: what was asked for, as ``threads``: another graph of the bundle is opened alike.
        weights: the map that its weights are read from; None where they are packed.
        providers: what the session really runs on, first choice first.
    """

    def __init__(
        self,
        graph: Path,
        device: Device = "cpu",
        threads: int = 0,
        check: Callable[[], None] | None = None,
        weights: MappedWeights | None = None,
    ) -> None:
        """Open ``graph``.

        Args:
            graph: the ONNX file; its external weights lie beside it.
            device: ``cpu`` or ``cuda``. CUDA that does not engage is an error.
            threads: threads within one operator; 0 lets ONNX Runtime choose.
            check: called whenever the graph was opened anew, in a forked process; raises where the
                files are no longer those that were verified.
            weights: where to read the external weights, on the CPU; None lets ONNX Runtime pack
                them.

        Raises:
            MachineError: ONNX Runtime is not installed or the device does not engage.
            BundleError: the graph cannot be loaded.
        """
        if device not in PROVIDERS:
            raise InputError(f"device {device!r}; expected cpu or cuda")
        if not 0 <= threads <= _MOST_THREADS:
            raise InputError(
                f"threads {threads}; expected 1 to {_MOST_THREADS}, or 0 for ONNX Runtime's choice"
            )
        self.device, self.threads, self.weights = device, threads, weights
        self._graph, self._check = graph, check
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
        """ONNX Runtime's session."""
        runtime = load_onnxruntime()
        wanted = PROVIDERS[self.device]
        if wanted not in runtime.get_available_providers():
            raise MachineError(
                f"onnxruntime {runtime.__version__} here offers "
                f"{', '.join(runtime.get_available_providers())}; device {self.device!r} needs "
                f"{wanted}: pip uninstall onnxruntime, then pip install 'layerguard[cuda]'"
            )
        options = runtime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._values = self._mapped(runtime)
        if self._values:
            options.add_session_config_entry("session.disable_prepacking", "1")
        for name, value in self._values.items():
            options.add_initializer(name, value)
        return open_graph(runtime, self._graph, options, wanted)

    def _mapped(self, runtime: Any) -> dict[str, Any]:
        """ONNX Runtime's values over the mapped weights; the session does not keep them alive."""
        arrays = self.weights.of(self._graph) if self.weights is not None else {}
        return {name: runtime.OrtValue.ortvalue_from_numpy(a) for name, a in arrays.items()}

    @property
    def _session(self) -> Any:
        """ONNX Runtime's session of this process, opened anew where there is none yet.

        Raises:
            MachineError: the process was forked from one whose session is on CUDA.
            BundleError: the files are no longer those that were verified.
        """
        if self._opened is not None:
            return self._opened
        with self._lock:
            if self._opened is None:
                if self.device != "cpu":
                    raise MachineError(
                        f"process {os.getpid()} was forked from one with a guard on "
                        f"{self.device}, which a forked process cannot use; load the guard in "
                        "each process (gunicorn without --preload), or start them by spawn"
                    )
                opened = self._open()
                if self._check is not None:
                    self._check()
                self._opened = opened
            return self._opened

    def renew(self) -> None:
        """In a forked process: leave the parent's session alone."""
        if self._opened is not None:
            keep_for_ever((self._opened, self._values))
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
        """Dtype and shape that the graph's input ``name`` takes; None is a side of any length."""
        found = next(item for item in self._session.get_inputs() if item.name == name)
        shape = tuple(side if isinstance(side, int) else None for side in found.shape)
        return np.dtype(_NUMBERS[found.type]), shape

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        """The named outputs for the given inputs.

        Raises:
            BundleError: the graph fails on them; or see ``_session``, in a forked process.
            MachineError: as there.
        """
        session = self._session
        try:
            arrays: list[Array] = session.run(outputs, feeds)
        except Exception as error:  # onnxruntime raises many types of its own
            fault = f"{self._graph.name} fails on its input ({error}); run `layerguard doctor`"
            raise BundleError(self._graph.parent, [fault]) from error
        return arrays


def load_onnxruntime() -> Any:
    """The onnxruntime module, imported when it is first needed: it takes longer than all of ours.

    Raises:
        MachineError: it is not installed, or it does not load on this machine.
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
