"""A command's arguments, in the order in which people type them."""

from argparse import Action, ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Any


class Parser(ArgumentParser):
    """Takes options before, between and behind the positional arguments.

    argparse fills an optional positional argument with nothing when the required ones before it
    have come and an option follows. Here the options are parsed first, then all that is left; what
    stands behind ``--`` is positional whatever it looks like. An option that takes several values
    ends at the next option or at ``--``.
    """

    def __init__(self, prog: str, **settings: Any) -> None:
        self._flags = _Part(self, prog)
        self._operands = _Part(self, prog)
        super().__init__(prog=prog, allow_abbrev=False, **settings)

    def add_argument(self, *names: str, **settings: Any) -> Action:
        """Declare an argument; see ``ArgumentParser.add_argument``."""
        part = self._flags if names[0].startswith("-") else self._operands
        part.add_argument(*names, **settings)
        return super().add_argument(*names, **settings)

    def parse(self, arguments: Sequence[str]) -> Namespace:
        """The arguments' values.

        Raises:
            SystemExit: they do not parse, or help was asked for.
        """
        end = arguments.index("--") if "--" in arguments else len(arguments)
        values, left = self._flags.parse_known_args(arguments[:end])
        return self._operands.parse_args([*left, *arguments[end:]], values)


class _Part(ArgumentParser):
    """Some of a command's arguments; help and usage are of the whole command."""

    def __init__(self, whole: ArgumentParser, prog: str) -> None:
        super().__init__(prog=prog, allow_abbrev=False, add_help=False)
        self._whole = whole

    def format_usage(self) -> str:
        """The whole command's usage."""
        return self._whole.format_usage()

    def format_help(self) -> str:
        """The whole command's help."""
        return self._whole.format_help()
