"""ONNX Runtime for C programs: Debian's headers, and the library of the installed wheel."""

import importlib.util
import subprocess
from pathlib import Path

from tests.fused.embed import fetch


class AbsentError(Exception):
    """What is lacking, in a sentence."""


def headers() -> Path:
    """The folder of the headers, fetched once; the C API keeps programs of older headers running.

    Raises:
        AbsentError: they cannot be had here.
    """
    try:
        fetch.bring_headers()
    except (OSError, subprocess.CalledProcessError, StopIteration) as error:
        raise AbsentError(f"ONNX Runtime's headers could not be had ({error})") from error
    return fetch.INCLUDE


def library(folder: Path) -> list[str]:
    """What a linker needs for the wheel's library, which ``folder`` gives the name it asks for.

    Raises:
        AbsentError: the wheel has none.
    """
    spec = importlib.util.find_spec("onnxruntime")
    assert spec is not None
    assert spec.origin is not None
    found = sorted(Path(spec.origin).parent.glob("capi/libonnxruntime.so.*"))
    if not found:
        raise AbsentError("this onnxruntime wheel has no library of its own")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / name).symlink_to(found[-1])
    return [f"-L{folder}", f"-Wl,-rpath,{folder}", "-lonnxruntime"]
