"""The sandbox that chat templates are rendered in, without transformers.

A chat template is a program that came with a model. Here it reaches nothing but its arguments, and
it ends: turns of loops and calls are counted, products and the rendered text stay bounded. Memory
on the way there is not: a chat template is part of the bundle and trusted as its graph is.
"""

import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from layerguard.runtime.errors import InputError

_MAX_STEPS = 200_000
"""Turns of loops and calls of one rendering: a chat of a thousand turns takes some ten thousand."""

_MAX_CHARACTERS = 1 << 24
_STEPS = "layerguard_steps"

_DAY = datetime(2024, 7, 26, tzinfo=UTC)
"""What ``strftime_now`` tells a template, every day: a score that depends on the date could not be
reproduced, and canaries would fail. The model itself is told the true date: of a template that
writes it, those tokens differ between guard and model, in calibration as in service."""

_TO_ESCAPE = re.compile("[^\x00-\x7e\ue000\ue001]+")
"""What ``tojson(ensure_ascii=true)`` escapes. The two private-use characters stay: they mark what
``template.py`` has taken out, and are typed by nobody else."""


class _Sandbox(ImmutableSandboxedEnvironment):
    """Counts calls, and computes no power and no long product of a sequence."""

    intercepted_binops = frozenset({"*", "**"})

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """One call from within a template."""
        next(context[_STEPS])
        return super().call(context, function, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """One product or power within a template."""
        sizes = [len(side) if hasattr(side, "__len__") else abs(side) for side in (left, right)]
        if operator == "**" or sizes[0] * sizes[1] > _MAX_CHARACTERS:
            raise SecurityError(f"{sizes[0]} {operator} {sizes[1]} is more than a template needs")
        return super().call_binop(context, operator, left, right)


class _Generation(Extension):
    """``{% generation %}``: the assistant's words, for those who train on them; the text stays."""

    tags = {"generation"}  # noqa: RUF012  jinja2's own type

    def parse(self, parser: Parser) -> nodes.Node:
        """The block's body in a scope of its own, as transformers renders it."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


def compile_chat(source: str) -> Callable[..., str]:
    """The render function of a chat template; it takes the template's variables by name.

    It raises whatever the template does, jinja2's ``TemplateError`` where it does too much.

    Raises:
        InputError: the template does not compile.
    """
    environment = _Sandbox(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols", _Generation],
    )
    environment.filters["tojson"] = _to_json
    environment.filters[_STEPS] = _counted
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = _DAY.strftime
    try:
        tree = environment.parse(source)
        for loop in tree.find_all(nodes.For):
            loop.iter = nodes.Filter(loop.iter, _STEPS, [], [], None, None, lineno=loop.lineno)
        template = environment.from_string(tree)
    except Exception as error:  # Python's own compiler refuses some things too
        raise InputError(
            f"the bundle's chat template does not compile ({error}); export the model again, "
            "with --template and a text that has {prompt} in it"
        ) from error

    def render(**variables: Any) -> str:
        parts, length = [], 0
        for part in template.generate({**variables, _STEPS: _budget()}):
            parts.append(part)
            length += len(part)
            if length > _MAX_CHARACTERS:
                raise TemplateError(f"it gave more than {_MAX_CHARACTERS} characters")
        return "".join(parts)

    return render


def _budget() -> Iterator[None]:
    yield from itertools.repeat(None, _MAX_STEPS)
    raise TemplateError(f"it took more than {_MAX_STEPS} loop turns and calls")


@pass_context
def _counted(context: Context, items: Iterable[Any]) -> Iterator[Any]:
    steps = context[_STEPS]
    for item in items:
        next(steps)
        yield item


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as transformers' filter of that name writes it: no HTML escapes."""
    text = json.dumps(
        value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys
    )
    return _TO_ESCAPE.sub(lambda run: json.dumps(run[0])[1:-1], text) if ensure_ascii else text
