"""The command line: one program with a table of sub-commands, each in its own module.

The module of a sub-command has ``add_arguments(parser)`` and ``run(arguments) -> exit code``. It is
imported when the command runs, so serving commands never load the dependencies of building. Where
it needs an extra, its docstring and ``add_arguments`` are in a module of their own, so that
``--help`` needs none.
"""

import difflib
import importlib
import re
import sys
import traceback
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from types import ModuleType

from layerguard.runtime.cli import streams
from layerguard.runtime.cli.arguments import Parser
from layerguard.runtime.errors import LayerGuardError, MachineError
from layerguard.runtime.extras import needing

EXIT_WRONG_CALL = 2
_INTERRUPTED = 130
_MIDDLE_OF_LINE = re.compile(r"\n(?!  - )")
"""A line break of an error that begins no item of a list: it is part of a name that is quoted."""


@dataclass(frozen=True, slots=True)
class Command:
    """One sub-command.

    Attributes:
        module: the module that runs it.
        extra: the extra that installs its dependencies.
        help: its line of help.
        arguments: the module that describes it and its arguments; None: ``module``.
    """

    module: str
    extra: str
    help: str
    arguments: str | None = None


COMMANDS = {
    "export": Command(
        "layerguard.exporter.command",
        "export",
        "turn a transformer into a bundle with an ONNX graph",
        "layerguard.exporter.arguments",
    ),
    "calibrate": Command(
        "layerguard.calibration.commands.calibrate",
        "calibrate",
        "fit the detectors of a bundle",
        "layerguard.calibration.commands.arguments.calibrate",
    ),
    "import-siren": Command(
        "layerguard.calibration.commands.import_siren",
        "calibrate",
        "freeze a released SIREN head into a bundle",
        "layerguard.calibration.commands.arguments.import_siren",
    ),
    "recalibrate": Command(
        "layerguard.calibration.commands.recalibrate",
        "calibrate",
        "adjust a bundle's thresholds to recent traffic",
        "layerguard.calibration.commands.arguments.recalibrate",
    ),
    "fuse": Command(
        "layerguard.exporter.fused.command",
        "fuse",
        "put a bundle's detectors and decision into one ONNX graph",
        "layerguard.exporter.fused.arguments",
    ),
    "export-triton": Command(
        "layerguard.runtime.cli.export_triton",
        "cpu",
        "write a model repository for Triton from a fused bundle",
    ),
    "score": Command("layerguard.runtime.cli.score", "cpu", "score texts with a calibrated bundle"),
    "generate": Command(
        "layerguard.runtime.cli.generate", "cpu", "generate an answer; the guard checks every token"
    ),
    "serve": Command(
        "layerguard.runtime.cli.serve", "serve", "serve bundles over HTTP, to gateways and agents"
    ),
    "audit-log": Command(
        "layerguard.runtime.cli.audit_log", "cpu", "check the chain of a server's audit log"
    ),
    "eval": Command(
        "layerguard.calibration.commands.evaluate",
        "calibrate",
        "measure a bundle on labelled rows",
        "layerguard.calibration.commands.arguments.evaluate",
    ),
    "parity": Command(
        "layerguard.runtime.cli.parity", "cpu", "compare two bundles' scores and verdicts on rows"
    ),
    "drift fit": Command(
        "layerguard.calibration.commands.drift_fit",
        "calibrate",
        "fit a monitor of fine-tuning checkpoints on labelled runs",
        "layerguard.calibration.commands.arguments.drift_fit",
    ),
    "drift check": Command(
        "layerguard.runtime.cli.drift_check",
        "cpu",
        "check whether a checkpoint drifts into misalignment",
    ),
    "audit": Command(
        "layerguard.calibration.commands.audit",
        "calibrate",
        "compare a tuned model's weights with its base's, and show what excites the change",
        "layerguard.calibration.commands.arguments.audit",
    ),
    "trace": Command(
        "layerguard.calibration.commands.trace",
        "cpu",
        "show where a model forms its answers, and which layer is fragile",
    ),
    "pack": Command(
        "layerguard.runtime.cli.pack", "cpu", "make a wheel out of a bundle, for pip to install"
    ),
    "list": Command(
        "layerguard.runtime.cli.installed", "cpu", "show the bundles that are installed"
    ),
    "sign": Command(
        "layerguard.runtime.cli.sign", "sign", "sign a bundle with a private key, offline"
    ),
    "verify": Command(
        "layerguard.runtime.cli.verify", "sign", "verify a bundle's signature with the public key"
    ),
    "inspect": Command("layerguard.runtime.cli.inspect", "cpu", "verify a bundle and describe it"),
    "doctor": Command(
        "layerguard.runtime.cli.doctor", "cpu", "check whether this machine can serve"
    ),
    "bench": Command("layerguard.runtime.cli.bench", "cpu", "time a bundle on this machine"),
    "demo": Command(
        "layerguard.runtime.cli.demo", "demo", "export, calibrate and score a real model end to end"
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command.

    Returns:
        0 done and nothing flagged, 1 something flagged, 2 the call or the data is wrong, 3 the
        machine is wrong (provider, missing extra).
    """
    streams.accept_any_text()
    arguments = list(sys.argv[1:] if argv is None else argv)
    words = 2 if " ".join(arguments[:2]) in COMMANDS else 1
    name, rest = " ".join(arguments[:words]), arguments[words:]
    try:
        with streams.flushed():
            return _run(name, rest)
    except LayerGuardError as error:
        message = _MIDDLE_OF_LINE.sub(r"\\n", str(error))
        streams.say(f"layerguard {name}: {message}")
        return error.exit_code
    except BrokenPipeError:  # the reader of the output is gone
        return EXIT_WRONG_CALL
    except Exception as error:  # noqa: BLE001  Python's own exit code, 1, would mean "flagged"
        if isinstance(error, OSError) and error.errno in streams.NOT_WRITABLE:
            streams.say(
                f"layerguard {name}: output cannot be written ({error.strerror}); expected a "
                "writable disk or pipe: free some space, or write the output elsewhere"
            )
            return MachineError.exit_code
        streams.say(traceback.format_exc().rstrip())
        streams.say(f"layerguard {name}: this is a bug in LayerGuard; please report it")
        return MachineError.exit_code
    except KeyboardInterrupt:
        streams.say(f"layerguard {name}: interrupted")
        return _INTERRUPTED


def _run(name: str, arguments: Sequence[str]) -> int:
    if name in ("", "-h", "--help"):
        print(_overview())
        return 0 if name else EXIT_WRONG_CALL
    if name == "--version":
        print(f"layerguard {version('layerguard')}")
        return 0
    if name not in COMMANDS:
        subcommands = [command for command in COMMANDS if command.startswith(f"{name} ")]
        close = subcommands or difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        streams.say(f"layerguard: no command {name!r}{hint}\n\n{_overview()}")
        return EXIT_WRONG_CALL
    parsed = command_parser(name).parse(arguments)
    code: int = _load(COMMANDS[name].module, COMMANDS[name].extra).run(parsed)
    return code


def command_parser(name: str) -> Parser:
    """The parser of a command's arguments; needs no extra."""
    command = COMMANDS[name]
    module = _load(command.arguments or command.module, command.extra)
    parser = Parser(
        prog=f"layerguard {name}",
        description=module.__doc__,
        formatter_class=RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    return parser


def _load(module: str, extra: str) -> ModuleType:
    with needing(extra):
        return importlib.import_module(module)


def _overview() -> str:
    lines = [f"  {name:<13} {command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: layerguard COMMAND ... | layerguard COMMAND --help | layerguard --version",
            "",
            "A guard that reads a language model's hidden layers, wherever ONNX Runtime runs.",
            "",
            *lines,
            "",
            "exit codes: 0 done and nothing flagged, 1 something flagged, 2 the call or the data",
            "is wrong, 3 the machine is wrong",
        ]
    )
