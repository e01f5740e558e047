"""The C library's guard from Python, call by call, for tests that compare it with Python's own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from layerguard.runtime._kernels import ffi, lib
from layerguard.runtime.types import Array

DTYPES = {"float32": lib.LG_F32, "float16": lib.LG_F16, "uint16": lib.LG_BF16}


class CReading(NamedTuple):
    """What C says of one detector."""

    status: int
    flagged: bool
    score: float
    threshold: float
    p_value: float
    evidence: float
    layer: int
    place: int


class CVerdict(NamedTuple):
    """What C says of all of them."""

    flagged: bool
    invalid: bool
    p_value: float
    domain: str | None


class RefusedError(Exception):
    """A status that is not LG_OK, and the message that came with it."""

    def __init__(self, status: int, message: str = "") -> None:
        super().__init__(f"{ffi.string(lib.lg_strerror(status)).decode()} {message}")
        self.status, self.message = status, message


def checked(status: int) -> None:
    """Raise what is not LG_OK."""
    if status != lib.LG_OK:
        raise RefusedError(status)


def sized(name: str, **fields: Any) -> Any:
    """A struct that knows its size."""
    return ffi.new(f"{name} *", {"struct_size": ffi.sizeof(name), **fields})


def open_guard(archive: Path | bytes, max_bytes: int = 0) -> Any:
    """A guard that is closed when nothing holds it any more; see ``lg_open``."""
    message = ffi.new("char[256]")
    options = sized("lg_open_options", max_bytes=max_bytes, message=message, message_size=256)
    guard = ffi.new("lg_guard **")
    if isinstance(archive, Path):
        status = lib.lg_open(str(archive).encode(), options, guard)
    else:
        status = lib.lg_open_memory(archive, len(archive), options, guard)
    if status != lib.LG_OK:
        assert guard[0] == ffi.NULL
        raise RefusedError(status, ffi.string(message).decode())
    return ffi.gc(guard[0], lib.lg_close)


class CGuard:
    """A guard of the C library.

    Attributes:
        info: what ``lg_guard_describe`` says.
        names: of its detectors, in order.
    """

    def __init__(self, archive: Path | bytes) -> None:
        self.handle = open_guard(archive)
        self.info = sized("lg_guard_info")
        checked(lib.lg_guard_describe(self.handle, self.info))
        self.names = [
            ffi.string(self.detector(i).name).decode() for i in range(self.info.detectors)
        ]

    def detector(self, index: int) -> Any:
        """What ``lg_detector_describe`` says."""
        info = sized("lg_detector_info")
        checked(lib.lg_detector_describe(self.handle, index, info))
        return info

    def score(
        self,
        states: Sequence[Array],
        mask: Array | None = None,
        roles: Array | None = None,
        chosen: Sequence[bool] | None = None,
        **fields: Any,
    ) -> dict[str, CReading]:
        """What ``lg_score`` says of one text."""
        call = self.call(states, mask, roles, chosen, **fields)
        checked(lib.lg_score(self.handle, call))
        return self.found()

    def call(
        self,
        states: Sequence[Array],
        mask: Array | None = None,
        roles: Array | None = None,
        chosen: Sequence[bool] | None = None,
        **fields: Any,
    ) -> Any:
        """What ``lg_score`` is called with; it lives as long as this guard's next call."""
        self.readings = ffi.new("lg_reading[]", len(self.names))
        workspace = ffi.new("double[]", self.info.workspace // 8 + 1)
        described, kept = states_of(states)
        given = {"mask": flags(mask), "roles": flags(roles), "chosen": flags(chosen)}
        self._kept = workspace, kept, given
        return sized(
            "lg_score_call",
            states=described,
            workspace=workspace,
            workspace_size=self.info.workspace,
            readings=self.readings,
            reading_size=ffi.sizeof("lg_reading"),
            **given,
            **fields,
        )

    def decide(self, domain: str | None = None) -> CVerdict:
        """What ``lg_decide`` says of the readings of the last score or read."""
        name = ffi.NULL if domain is None else ffi.new("char[]", domain.encode())
        size = ffi.sizeof("lg_reading")
        call = sized("lg_decide_call", readings=self.readings, reading_size=size, domain=name)
        verdict = sized("lg_verdict")
        checked(lib.lg_decide(self.handle, call, verdict))
        used = lib.lg_domain_name(self.handle, verdict.domain) if verdict.domain >= 0 else None
        return CVerdict(
            bool(verdict.flagged),
            bool(verdict.invalid),
            verdict.p_value,
            None if used is None else ffi.string(used).decode(),
        )

    def found(self) -> dict[str, CReading]:
        """The readings by name; those that were not read are left out."""
        return {
            name: CReading(
                r.status,
                bool(r.flagged),
                r.score,
                r.threshold,
                r.p_value,
                r.evidence,
                r.layer,
                r.place,
            )
            for name, r in zip(self.names, self.readings, strict=True)
            if r.status != lib.LG_UNREAD
        }

    def stream(self) -> "CStream":
        """A text that is still being written."""
        return CStream(self)


class CStream:
    """A stream of the C library."""

    def __init__(self, guard: CGuard) -> None:
        self.guard = guard
        stream = ffi.new("lg_stream **")
        checked(lib.lg_stream_open(guard.handle, ffi.NULL, 0, stream))
        self.handle = ffi.gc(stream[0], lib.lg_stream_close)

    def push(self, states: Sequence[Array], roles: Array | None = None) -> None:
        """Take further tokens in."""
        described, kept = states_of(states)
        call = sized("lg_push_call", states=described, roles=flags(roles))
        checked(lib.lg_stream_push(self.handle, call))
        del kept

    def read(self) -> dict[str, CReading]:
        """The readings of the tokens so far."""
        self.guard.readings = ffi.new("lg_reading[]", len(self.guard.names))
        call = sized(
            "lg_read_call", readings=self.guard.readings, reading_size=ffi.sizeof("lg_reading")
        )
        checked(lib.lg_stream_read(self.handle, call))
        return self.guard.found()

    def copy(self) -> "CStream":
        """The same, to be continued apart."""
        other = CStream(self.guard)
        checked(lib.lg_stream_copy(other.handle, self.handle))
        return other


def states_of(layers: Sequence[Array]) -> tuple[dict[str, Any], Any]:
    """The fields of ``lg_states`` for arrays where they lie, and what keeps their addresses."""
    first = layers[0]
    kind = "uint16" if first.dtype.name == "bfloat16" else first.dtype.name
    pointers = ffi.new("void const *[]", [ffi.cast("void *", a.ctypes.data) for a in layers])
    return {
        "layers": pointers,
        "row_stride": first.strides[0],
        "layer_count": len(layers),
        "rows": first.shape[0],
        "width": first.shape[1],
        "dtype": DTYPES[kind],
    }, (pointers, list(layers))


def flags(values: Any) -> Any:
    """One byte an entry, or null."""
    if values is None:
        return ffi.NULL
    return ffi.new("unsigned char[]", np.asarray(values).astype(np.uint8).tobytes())
