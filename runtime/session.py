"""One ONNX Runtime session, opened so that an always-on guard behaves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from layerguard.runtime.errors import BundleError, InputError, MachineError
from layerguard.runtime.types import Array

Device = Literal["cpu", "cuda"]

PROVIDERS: Mapping[str, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
"""ONNX Runtime's name of what runs on each device."""

_NUMBERS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64,
            "tensor(bool)": np.bool_, "tensor(double)": np.float64}  # fmt: skip
"""ONNX Runtime's names of the types that graphs of ours take."""

_MOST_THREADS = 1_024
"""ONNX Runtime starts as many as it is told, until the machine gives in."""


class Session:
    """A graph ready to run; safe to call from many threads.

    Attributes:
        device: what was asked for, as ``threads``: another graph of the bundle is opened alike.
        providers: what the session really runs on, first choice first.
    """

    def __init__(self, graph: Path, device: Device = "cpu", threads: int = 0) -> None:
        """Open ``graph``.

        Args:
            graph: the ONNX file; its external weights lie beside it.
            device: ``cpu`` or ``cuda``. CUDA that does not engage is an error.
            threads: threads within one operator; 0 lets ONNX Runtime choose.

        Raises:
            MachineError: ONNX Runtime is not installed or the device does not engage.
            BundleError: the graph cannot be loaded.
        """
        runtime = load_onnxruntime()
        if device not in PROVIDERS:
            raise InputError(f"device {device!r}; expected cpu or cuda")
        if not 0 <= threads <= _MOST_THREADS:
            raise InputError(
                f"threads {threads}; expected 1 to {_MOST_THREADS}, or 0 for ONNX Runtime's choice"
            )
        wanted = PROVIDERS[device]
        if wanted not in runtime.get_available_providers():
            raise MachineError(
                f"onnxruntime {runtime.__version__} here offers "
                f"{', '.join(runtime.get_available_providers())}; device {device!r} needs {wanted}:"
                " pip uninstall onnxruntime, then pip install 'layerguard[cuda]'"
            )
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            str(graph).encode()
        except UnicodeEncodeError as error:
            fault = "its path is not UTF-8, and onnxruntime opens no other; rename the folder"
            raise BundleError(graph.parent, [fault]) from error
        try:
            self._session = runtime.InferenceSession(str(graph), options, providers=[wanted])
        except Exception as error:  # onnxruntime raises many types of its own
            fault = f"{graph.name} cannot be loaded by onnxruntime ({error}); export it again"
            raise BundleError(graph.parent, [fault]) from error
        self._graph = graph
        self.device, self.threads = device, threads
        self.providers: tuple[str, ...] = tuple(self._session.get_providers())
        if self.providers[0] != wanted:
            raise MachineError(
                f"device {device!r} did not engage: the session runs on "
                f"{', '.join(self.providers)}. Run `layerguard doctor`; CUDA and cuDNN libraries "
                "of the version that onnxruntime-gpu was built for must be found"
            )

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
            BundleError: the graph fails on them.
        """
        try:
            arrays: list[Array] = self._session.run(outputs, feeds)
        except Exception as error:  # onnxruntime raises many types of its own
            fault = f"{self._graph.name} fails on its input ({error}); run `layerguard doctor`"
            raise BundleError(self._graph.parent, [fault]) from error
        return arrays


def load_onnxruntime() -> Any:
    """The onnxruntime module, imported when it is first needed: it takes longer than all of ours.

    Raises:
        MachineError: it is not installed, or it does not load on this machine.
    """
    try:
        import onnxruntime  # noqa: PLC0415
    except ImportError as error:
        raise MachineError(
            f"onnxruntime cannot be imported ({error}): pip install 'layerguard[cpu]', or "
            "'layerguard[cuda]' on a machine with a CUDA device"
        ) from error
    onnxruntime.disable_telemetry_events()
    return onnxruntime
