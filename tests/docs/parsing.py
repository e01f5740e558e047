"""Checks a shell command of the documentation with the program's own parser, without running it."""

import re
import tomllib
from importlib.util import find_spec
from pathlib import Path

from layerguard.runtime import cli
from tests.docs.blocks import ROOT

_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
_TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
_OTHERS = {"cc", "cmake", "cp", "echo", "git", "openssl", "serve", "source"}
"""Programs of other projects, whose options are not ours to check."""

_PLAIN = re.compile(r"[\w.-]+(/[\w.-]*)*")


def faults(words: list[str], folder: Path) -> list[str]:
    """What is wrong with a command.

    Args:
        words: of the command.
        folder: empty, the working directory; whatever an argument may name is made there.
    """
    program, *arguments = words
    if program == "layerguard":
        return _layerguard(arguments, folder)
    if program == "make":
        return [f"no target {word}" for word in arguments if word not in _TARGETS | {"-j"}]
    if program == "python":
        return _python(arguments)
    if program == "pip":
        return _extras(arguments)
    return [] if program in _OTHERS else [f"no program {program!r} is known here"]


def unknown_words(command: str) -> list[str]:
    """Commands and options of running text that the program does not have."""
    words = command.split()[1:]
    name = _name(words)
    if name is None:
        return [] if words[:1] in (["COMMAND"], ["--help"]) else [f"no command {words[:1]}"]
    known = _parser(name)._option_string_actions
    return [f"{name} has no option {w}" for w in words if w.startswith("--") and w not in known]


def _layerguard(arguments: list[str], folder: Path) -> list[str]:
    name = _name(arguments)
    if name is None:
        return [f"no command {arguments[:1]}"]
    rest = arguments[len(name.split()) :]
    for word in rest:
        if word.startswith("@"):
            (folder / word[1:]).write_text('{"suggested_layers": 3}\n')
        elif _PLAIN.fullmatch(word) and not word.startswith("-"):
            (folder / word).mkdir(parents=True, exist_ok=True)
    try:
        _parser(name).parse(rest)
    except SystemExit as error:
        return [f"{name} refuses {rest} (exit code {error.code})"]
    return []


def _name(words: list[str]) -> str | None:
    """The command that the words begin with."""
    return next((n for n in (" ".join(words[:2]), *words[:1]) if n in cli.COMMANDS), None)


def _parser(name: str) -> cli.Parser:
    return cli.command_parser(name)


def _python(arguments: list[str]) -> list[str]:
    if arguments[:1] == ["-m"] and find_spec(arguments[1]) is None:
        return [f"no module {arguments[1]}"]
    return []


def _extras(arguments: list[str]) -> list[str]:
    known = _PROJECT["optional-dependencies"]
    asked = [e for word in arguments for e in re.findall(r"layerguard\[([\w,]+)\]", word)]
    return [f"no extra {e}" for extras in asked for e in extras.split(",") if e not in known]
