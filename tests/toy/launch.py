"""Runs the toy's steps with a build of the C core that includes the toy detector.

python -m tests.toy.launch KERNELS FOLDER
"""

import importlib
import sys
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader

_NAME = "layerguard.runtime._kernels"


def main(kernels: str, folder: str) -> None:
    """Load this build instead of the installed one, before any other import."""
    loader = ExtensionFileLoader(_NAME, kernels)
    spec = spec_from_loader(_NAME, loader)
    assert spec is not None
    sys.modules[_NAME] = module_from_spec(spec)
    loader.exec_module(sys.modules[_NAME])
    importlib.import_module("tests.toy.steps").main(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
