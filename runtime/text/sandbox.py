"""The sandbox that renders chat templates, without transformers.

A chat template is a program that comes with a model. In the sandbox it can only access its
arguments, and it always terminates: loop iterations and calls are counted, and the sizes of
products and of the rendered text are bounded. Intermediate memory is not bounded: the template is
part of the bundle and is trusted as much as the graph.
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
"""Most loop iterations and calls of one rendering. A chat of 1,000 turns needs about 10,000."""

_MAX_CHARACTERS = 1 << 24
_STEPS = "layerguard_steps"

_DAY = datetime(2024, 7, 26, tzinfo=UTC)
"""The fixed date that ``strftime_now`` gives to a template. With the current date, scores could not
be reproduced and canaries would fail. If a template writes the date, its tokens therefore differ
between guard and model, in calibration and in service alike."""

_TO_ESCAPE = re.compile("[^\x00-\x7e\ue000\ue001]+")
"""The characters that ``tojson(ensure_ascii=true)`` escapes. Two private-use characters are kept,
because ``template.py`` uses them as placeholders."""


class _Sandbox(ImmutableSandboxedEnvironment):
    """Counts calls, and refuses powers and large products."""

    intercepted_binops = frozenset({"*", "**"})

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Count and run one call of a template."""
        next(context[_STEPS])
        return super().call(context, function, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute a product of bounded size; refuse powers and larger products."""
        sizes = [len(side) if hasattr(side, "__len__") else abs(side) for side in (left, right)]
        if operator == "**" or sizes[0] * sizes[1] > _MAX_CHARACTERS:
            raise SecurityError(f"{sizes[0]} {operator} {sizes[1]} is more than a template needs")
        return super().call_binop(context, operator, left, right)


class _Generation(Extension):
    """``{% generation %}`` blocks, which mark assistant text for training; renders their body."""

    tags = {"generation"}  # noqa: RUF012  jinja2's own type

    def parse(self, parser: Parser) -> nodes.Node:
        """Parse the block's body into a new scope, as transformers does."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


def compile_chat(source: str) -> Callable[..., str]:
    """The render function of a chat template; it takes the template's variables by name.

    The function raises any error that the template raises, and jinja2's ``TemplateError`` if the
    template exceeds a limit of the sandbox.

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
    except Exception as error:  # jinja2's errors, and those of Python's compiler
        raise InputError(
            f"the bundle's chat template does not compile ({error}); export the model again with "
            "--template and a text that contains {prompt}"
        ) from error

    def render(**variables: Any) -> str:
        parts, length = [], 0
        for part in template.generate({**variables, _STEPS: _budget()}):
            parts.append(part)
            length += len(part)
            if length > _MAX_CHARACTERS:
                raise TemplateError(f"it rendered more than {_MAX_CHARACTERS} characters")
        return "".join(parts)

    return render


def _budget() -> Iterator[None]:
    yield from itertools.repeat(None, _MAX_STEPS)
    raise TemplateError(f"it needed more than {_MAX_STEPS} loop iterations and calls")


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
    """JSON as written by transformers' ``tojson`` filter: no HTML escapes."""
    text = json.dumps(
        value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys
    )
    return _TO_ESCAPE.sub(lambda run: json.dumps(run[0])[1:-1], text) if ensure_ascii else text
