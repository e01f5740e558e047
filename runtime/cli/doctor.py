"""Check whether this machine can serve: kernels, ONNX Runtime, providers, and a bundle if given."""

import json
import platform
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from layerguard.runtime import kernels
from layerguard.runtime.cli import options
from layerguard.runtime.cli.streams import show
from layerguard.runtime.errors import LayerGuardError, MachineError
from layerguard.runtime.model.session import PROVIDERS, Device, load_onnxruntime

Finding = tuple[str, str, int]
"""What was checked, the result, and the exit code that it implies: 0 if there is no problem."""

_OK = 0
_WRONG = MachineError.exit_code


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "bundle",
        nargs="?",
        type=Path,
        metavar="BUNDLE",
        help="a bundle to load, by folder or by name",
    )
    options.add_json(parser)
    options.add_session(parser)
    options.add_weights(parser)
    options.add_verify(parser)


def run(arguments: Namespace) -> int:
    """Print the findings; 3 if the machine has a problem, 2 if the bundle has one."""
    worst = _OK
    for what, result, code in (*_machine(arguments.device), *_bundle(arguments)):
        if arguments.json:
            print(json.dumps({"what": what, "found": result, "ok": code == _OK}))
        else:
            word = "ok   " if code == _OK else "WRONG"
            show(*f"{word}  {what:<12} {result}".split("\n"))
        worst = max(worst, code)
    return worst


def _machine(device: Device) -> Iterator[Finding]:
    yield "layerguard", version("layerguard"), _OK
    yield (
        "python",
        f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        _OK,
    )
    try:
        yield "kernels", kernels.level(), _OK
    except LayerGuardError as error:
        yield "kernels", str(error), _WRONG
    packages = {name: _version(name) for name in ("onnxruntime", "onnxruntime-gpu")}
    installed = [f"{name} {release}" for name, release in packages.items() if release]
    if len(installed) > 1:
        conflict = (
            f"found {' and '.join(installed)}, which overwrite each other's files: pip uninstall "
            "both, then install one of 'layerguard[cpu]' and 'layerguard[cuda]'"
        )
        yield "onnxruntime", conflict, _WRONG
    try:
        runtime = load_onnxruntime()
    except MachineError as error:
        yield "onnxruntime", str(error), _WRONG
        return
    yield "onnxruntime", ", ".join(installed) or runtime.__version__, _OK
    available = runtime.get_available_providers()
    yield "providers", ", ".join(available), _OK
    if PROVIDERS[device] not in available:
        remedy = "pip uninstall onnxruntime, then pip install 'layerguard[cuda]'"
        yield "device", f"{device} needs {PROVIDERS[device]}: {remedy}", _WRONG


def _bundle(arguments: Namespace) -> Iterator[Finding]:
    if arguments.bundle is None:
        return
    try:
        guard = options.load_guard(arguments)
    except LayerGuardError as error:
        yield "bundle", str(error), error.exit_code
        return
    detectors = ", ".join(guard.bundle.manifest.detectors)
    yield "bundle", f"{guard.bundle.id}: {detectors}", _OK
    yield "canaries", str(len(guard.bundle.manifest.canaries)), _OK
    yield "session", f"runs on {', '.join(guard.backbone.session.providers)}", _OK


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
