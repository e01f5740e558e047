"""Say whether this machine can serve: kernels, ONNX Runtime, providers, and a bundle if given."""

import json
import platform
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from layerguard.runtime import kernels
from layerguard.runtime.cli import options
from layerguard.runtime.errors import LayerGuardError, MachineError
from layerguard.runtime.guard import Guard
from layerguard.runtime.session import load_onnxruntime

Finding = tuple[str, str, bool]
"""What was looked at, what was found, and whether that is well."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("bundle", nargs="?", type=Path, metavar="BUNDLE", help="a bundle to load")
    options.add_json(parser)
    options.add_session(parser)


def run(arguments: Namespace) -> int:
    """Print the findings; 3 where the machine is wrong, 2 where the bundle is."""
    code = 0
    for findings, wrong in (
        (_machine(), MachineError.exit_code),
        (_bundle(arguments), LayerGuardError.exit_code),
    ):
        for what, found, well in findings:
            if arguments.json:
                print(json.dumps({"what": what, "found": found, "ok": well}))
            else:
                print(f"{'ok   ' if well else 'WRONG'}  {what:<12} {found}")
            code = max(code, 0 if well else wrong)
    return code


def _machine() -> Iterator[Finding]:
    yield "layerguard", version("layerguard"), True
    yield "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}", True
    try:
        yield "kernels", kernels.level(), True
    except LayerGuardError as error:
        yield "kernels", str(error), False
    packages = {name: _version(name) for name in ("onnxruntime", "onnxruntime-gpu")}
    installed = [f"{name} {found}" for name, found in packages.items() if found]
    if len(installed) > 1:
        found = (
            f"found {' and '.join(installed)}, which overwrite each other's files: pip uninstall "
            "both, then install one of 'layerguard[cpu]' and 'layerguard[cuda]'"
        )
        yield "onnxruntime", found, False
    try:
        runtime = load_onnxruntime()
    except MachineError as error:
        yield "onnxruntime", str(error), False
        return
    yield "onnxruntime", ", ".join(installed) or runtime.__version__, True
    yield "providers", ", ".join(runtime.get_available_providers()), True


def _bundle(arguments: Namespace) -> Iterator[Finding]:
    if arguments.bundle is None:
        return
    try:
        guard = Guard.load(arguments.bundle, device=arguments.device, threads=arguments.threads)
    except LayerGuardError as error:
        yield "bundle", str(error), False
        return
    detectors = ", ".join(guard.bundle.manifest.detectors)
    canaries = len(guard.bundle.manifest.canaries)
    yield "bundle", f"{guard.bundle.id}: {detectors}; {canaries} canaries agree", True
    yield "session", f"runs on {', '.join(guard.backbone.session.providers)}", True


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
