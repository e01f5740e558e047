"""Asked for CUDA, does a guard ever run on the CPU?

Each case is a process of its own, because ONNX Runtime reads the machine once.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnxruntime

from layerguard.runtime.model.session import PROVIDERS
from tests.gpu.bundles import path_of
from tests.gpu.stage import NotRun, Setting

_ASK = """
import json, sys
from layerguard.runtime import Guard, MachineError
try:
    guard = Guard.load(sys.argv[1], device="cuda")
    found = {"runs_on": guard.backbone.session.providers}
except MachineError as error:
    found = {"refused": str(error)}
print(json.dumps(found))
"""
_SECONDS = 120


def no_package(setting: Setting) -> Mapping[str, Any]:
    """An onnxruntime that was built without CUDA."""
    if PROVIDERS["cuda"] in onnxruntime.get_available_providers():
        raise NotRun("this onnxruntime has the CUDA provider")
    return _refused(setting, {})


def no_device(setting: Setting) -> Mapping[str, Any]:
    """A machine whose devices are invisible."""
    return _refused(setting, {"CUDA_VISIBLE_DEVICES": ""})


def no_library(setting: Setting) -> Mapping[str, Any]:
    """An onnxruntime whose CUDA library is not there."""
    with TemporaryDirectory() as folder:
        spec = find_spec("onnxruntime")
        assert spec is not None
        assert spec.submodule_search_locations is not None
        source = Path(spec.submodule_search_locations[0])
        shutil.copytree(
            source,
            Path(folder) / "onnxruntime",
            ignore=shutil.ignore_patterns("*providers_cuda*", "*providers_tensorrt*", "tools"),
        )
        paths = [folder, *filter(None, [os.environ.get("PYTHONPATH")])]
        return _refused(setting, {"PYTHONPATH": os.pathsep.join(paths)})


def _refused(setting: Setting, environment: Mapping[str, str]) -> Mapping[str, Any]:
    """What a child says that asks for CUDA; it must be a ``MachineError``."""
    bundle = path_of("minilm-float32", setting.bundles)
    child = subprocess.run(
        [sys.executable, "-c", _ASK, str(bundle)],
        env={**os.environ, **environment},
        capture_output=True, text=True, timeout=_SECONDS, check=False,
    )  # fmt: skip
    if child.returncode != 0:
        raise AssertionError(f"expected a MachineError, found: {child.stderr.strip()[-600:]}")
    found: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    if "refused" not in found:
        raise AssertionError(f"expected a MachineError, found a guard on {found['runs_on']}")
    return found
