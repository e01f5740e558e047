"""ONNX Runtime for C programs: headers, and the library of the installed wheel.

The wheel has no headers. They are taken from the npm package ``com.github.asus4.onnxruntime`` (ONNX
Runtime for Unity, MIT), whose iOS framework carries the C and C++ ones of an older release; the C
API keeps older programs running. ``ONNXRUNTIME_INCLUDE`` names a folder to use instead.
"""

import importlib.util
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.test_c_suite import ROOT

_PACKAGE = "com.github.asus4.onnxruntime@0.4.9"
_INSIDE = "/ios-arm64/onnxruntime.framework/Headers/"
_KEPT = ROOT / ".cache" / "onnxruntime-headers"
HEADER = "onnxruntime_c_api.h"


class AbsentError(Exception):
    """What is lacking, in a sentence."""


def headers() -> Path:
    """The folder of the headers, fetched once.

    Raises:
        AbsentError: they cannot be had here.
    """
    named = os.environ.get("ONNXRUNTIME_INCLUDE")
    folder = Path(named) if named else _KEPT
    if not (folder / HEADER).is_file():
        if named:
            raise AbsentError(f"ONNXRUNTIME_INCLUDE: no {HEADER} in {named}")
        _fetch(folder)
    return folder


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


def _fetch(folder: Path) -> None:
    if shutil.which("npm") is None:
        raise AbsentError("no npm here to fetch ONNX Runtime's headers with")
    with TemporaryDirectory() as name:
        done = subprocess.run(
            ["npm", "pack", "--silent", _PACKAGE],
            cwd=name, capture_output=True, text=True, check=False,
        )  # fmt: skip
        archives = list(Path(name).glob("*.tgz"))
        if done.returncode != 0 or not archives:
            raise AbsentError(f"npm could not fetch {_PACKAGE}: {done.stderr.strip()[-200:]}")
        unpacked = Path(name, "headers")
        unpacked.mkdir()
        with tarfile.open(archives[0]) as archive:
            for member in archive:
                if _INSIDE in member.name and member.isfile():
                    file = archive.extractfile(member)
                    assert file is not None
                    (unpacked / Path(member.name).name).write_bytes(file.read())
        folder.parent.mkdir(exist_ok=True)
        shutil.copytree(unpacked, folder, dirs_exist_ok=True)
