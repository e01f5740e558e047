"""Serve bundles over HTTP, to gateways and agents.

A BUNDLE is a folder or the name of an installed bundle; NAME=BUNDLE gives it the name that requests
use. The first one answers requests that name none. Every setting may stand in a TOML file
(--config), in a variable (LAYERGUARD_PORT for --port), or here. The server listens on this machine
only, unless --host says otherwise.
"""

import re
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from layerguard.runtime.cli.streams import show
from layerguard.runtime.errors import InputError
from layerguard.runtime.extras import needing
from layerguard.runtime.server.settings import read_config, settings

_NAMED = re.compile(r"([A-Za-z0-9._-]+)=(.+)", re.DOTALL)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("bundles", nargs="*", metavar="[NAME=]BUNDLE", help="what to serve")
    parser.add_argument("--config", type=Path, metavar="FILE", help="a TOML file of settings")
    parser.add_argument(
        "--check-config", action="store_true", help="check the settings and serve nothing"
    )
    for setting in settings():
        default = "" if setting.default in ("", {}) else f" (default: {setting.default})"
        words = [word for word in setting.choices if word]
        parser.add_argument(
            setting.flag,
            metavar=f"{{{','.join(words)}}}" if words else "VALUE",
            help=f"{setting.rule.help}{default}".replace("%", "%%"),
        )


def run(arguments: Namespace) -> int:
    """Serve until SIGTERM or SIGINT."""
    given = {setting.name: getattr(arguments, setting.name) for setting in settings()}
    flags = {name: value for name, value in given.items() if value is not None}
    config = read_config(arguments.config, flags, named_bundles(arguments.bundles))
    if arguments.check_config:
        show(f"the settings are usable; bundles: {', '.join(config.bundles)}")
        return 0
    with needing("serve"):
        from layerguard.runtime.server.run import serve  # noqa: PLC0415
    return serve(config)


def named_bundles(arguments: Sequence[str]) -> dict[str, str]:
    """The bundles of the command line by name; without one, a folder has its own.

    Raises:
        InputError: two have the same name.
    """
    named: dict[str, str] = {}
    for argument in arguments:
        match = _NAMED.fullmatch(argument)
        name, where = match.groups() if match else (Path(argument).resolve().name, argument)
        if name in named:
            raise InputError(
                f"found two bundles named {name!r}; expected a name for each: NAME=BUNDLE"
            )
        named[name] = where
    return named
