"""The sandbox that renders chat templates, without transformers.

A chat template is a program that comes with a model. In the sandbox it can only access its
arguments, and it always terminates within bounded time and memory: loop iterations, calls and the
characters of all texts that it makes are counted (``rendering_budget.py``), and what makes long
texts out of short ones is measured before it runs.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from layerguard.runtime.errors import InputError
from layerguard.runtime.text.rendering_budget import (
    MAX_CHARACTERS,
    Budget,
    check_brace_format,
    check_percent_format,
)
from layerguard.runtime.text.sandbox_filters import (
    BUDGET,
    LISTENER,
    bounded_filters,
    budget_of,
    counted,
    spelled,
    turn_started,
)

_MAX_SOURCE = 1 << 18
"""Most characters of a template. Those of released models have up to about 30,000."""

_COUNTED, _STARTED = "layerguard_counted", "layerguard_started"
_SPELLED, _SEARCHED = "layerguard_spelled", "layerguard_searched"

OnItem = Callable[[int, Any], None]
"""Called with the number of characters rendered so far and an item, when a loop's body begins."""

_LEFT_OUT = frozenset(
    {"center", "expandtabs", "format_map", "ljust", "maketrans", "rjust", "to_bytes", "translate",
     "zfill"}
)  # fmt: skip
"""Methods of texts and numbers that a template cannot use: they make long texts of short ones."""

_DAY = datetime(2024, 7, 26, tzinfo=UTC)
"""The fixed date that ``strftime_now`` gives to a template. With the current date, scores could not
be reproduced and canaries would fail. If a template writes the date, its tokens therefore differ
between guard and model, in calibration and in service alike."""


class _Sandbox(ImmutableSandboxedEnvironment):
    """Counts calls and operators, and what they make; refuses powers."""

    intercepted_binops = frozenset({"+", "*", "%", "**"})

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether a template may use an attribute."""
        return attr not in _LEFT_OUT and super().is_safe_attribute(obj, attr, value)

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Count and run one call of a template."""
        budget = budget_of(context)
        budget.step()
        text = getattr(getattr(function, "__wrapped__", function), "__self__", None)
        if isinstance(text, (str, bytes)):
            args = _checked_arguments(budget, text, function.__name__, args, kwargs)
        return budget.spend(super().call(context, function, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute a sum, a product or a formatted text of bounded size."""
        budget = budget_of(context)
        sizes = [len(side) if hasattr(side, "__len__") else abs(side) for side in (left, right)]
        if operator == "**" or (operator == "*" and sizes[0] * sizes[1] > MAX_CHARACTERS):
            raise SecurityError(f"{sizes[0]} {operator} {sizes[1]} is more than a template needs")
        if operator == "+" and hasattr(left, "__len__"):
            budget.need(sizes[0] + sizes[1])
        if operator == "%" and isinstance(left, (str, bytes)):
            check_percent_format(left)
            budget.need_spelled([left, right])
        return budget.spend(super().call_binop(context, operator, left, right))


def _checked_arguments(
    budget: Budget, text: str | bytes, name: str, args: Any, kwargs: Any
) -> tuple[Any, ...]:
    """The arguments of a text's method, if what it makes is within the budget."""
    if name == "join" and args:
        args = (list(args[0]), *args[1:])
        budget.need_spelled(args[0])
        budget.need(len(args[0]) * len(text))
    elif name == "replace" and len(args) > 1:
        budget.need(len(text) + text.count(args[0]) * len(args[1]))
    elif name == "format" and isinstance(text, str):
        check_brace_format(text)
        budget.need_spelled([text, *args, *kwargs.values()])
    return tuple(args)


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

    An ``OnItem`` may come first. The function raises any error that the template raises, and
    jinja2's ``TemplateError`` if the template exceeds a limit of the sandbox.

    Raises:
        InputError: the template does not compile, or is too long.
    """
    if len(source) > _MAX_SOURCE:
        raise InputError(
            f"the bundle's chat template has {len(source)} characters; expected at most "
            f"{_MAX_SOURCE}: export the model again with --template and a text that contains "
            "{prompt}"
        )
    environment = _Sandbox(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols", _Generation],
        finalize=spelled,
    )
    environment.filters = {
        **bounded_filters(),
        _COUNTED: counted,
        _STARTED: turn_started,
        _SPELLED: spelled,
        _SEARCHED: _searched,
    }
    del environment.globals["lipsum"]
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = _DAY.strftime
    try:
        tree = environment.parse(source)
        _count_everything(tree)
        template = environment.from_string(tree)
    except Exception as error:  # jinja2's errors, and those of Python's compiler
        raise InputError(
            f"the bundle's chat template does not compile ({error}); export the model again with "
            "--template and a text that contains {prompt}"
        ) from error

    def render(on_item: OnItem | None = None, /, **variables: Any) -> str:
        parts, length = [], 0
        listener = None if on_item is None else lambda item: on_item(length, item)
        for part in template.generate({**variables, BUDGET: Budget(), LISTENER: listener}):
            parts.append(part)
            length += len(part)
            if length > MAX_CHARACTERS:
                raise TemplateError(f"it rendered more than {MAX_CHARACTERS} characters")
        return "".join(parts)

    return render


def _count_everything(tree: nodes.Template) -> None:
    """Count what jinja2 compiles without a call: loops, ``~``, comparisons and plain text."""
    for loop in tree.find_all(nodes.For):
        loop.iter = _filtered(loop.iter, _COUNTED)
        if isinstance(loop.target, nodes.Name):
            item = nodes.Name(loop.target.name, "load", lineno=loop.lineno)
            loop.body.insert(0, nodes.ExprStmt(_filtered(item, _STARTED), lineno=loop.lineno))
    for text in tree.find_all(nodes.Concat):
        text.nodes = [_filtered(node, _SPELLED) for node in text.nodes]
    for operand in tree.find_all(nodes.Operand):
        operand.expr = _filtered(operand.expr, _SEARCHED)
    for output in tree.find_all(nodes.Output):  # jinja2 does not pass plain text to ``finalize``
        output.nodes = [
            nodes.Const(node.data, lineno=node.lineno)
            if isinstance(node, nodes.TemplateData)
            else node
            for node in output.nodes
        ]


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


@pass_context
def _searched(context: Context, value: Any) -> Any:
    """The right-hand side of a comparison: a text or list that may be read to its end."""
    if isinstance(value, (str, list)) and len(value) > _SHORT:
        budget_of(context).step()
    return value


_SHORT = 1 << 10
"""Texts and lists up to this length are compared at no cost."""


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)
