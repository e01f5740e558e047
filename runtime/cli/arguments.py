"""An argument parser that accepts options and positional arguments in any order."""

from argparse import Action, ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Any, NoReturn

from layerguard.runtime.printable import printable


class Parser(ArgumentParser):
    """Accepts options before, between and after the positional arguments.

    argparse leaves an optional positional argument empty if an option follows the required ones.
    This parser parses the options first, then the remaining arguments. Everything after ``--`` is
    positional. The values of an option that takes several end at the next option or at ``--``.
    ``ArgumentParser.parse_intermixed_args`` is not used, because in Python 3.11 it removes ``--``
    before it parses the positional arguments.
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
        """Parse the arguments.

        Raises:
            SystemExit: the arguments are not valid, or help was requested.
        """
        end = arguments.index("--") if "--" in arguments else len(arguments)
        values, left = self._flags.parse_known_args(arguments[:end])
        return self._operands.parse_args([*left, *arguments[end:]], values)


class _Part(ArgumentParser):
    """A parser for a part of a command's arguments; its help describes the whole command."""

    def __init__(self, whole: ArgumentParser, prog: str) -> None:
        super().__init__(prog=prog, allow_abbrev=False, add_help=False)
        self._whole = whole

    def format_usage(self) -> str:
        """The whole command's usage."""
        return self._whole.format_usage()

    def format_help(self) -> str:
        """The whole command's help."""
        return self._whole.format_help()

    def error(self, message: str) -> NoReturn:
        """Exit with the usage and the message, which quotes arguments."""
        super().error(printable(message))
