"""jinja2's filters for chat templates: each counts what it makes against the rendering's budget.

A filter that makes long texts out of short ones is measured before it runs. Filters that only lay
out pages, such as ``center``, are left out.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from typing import Any

from jinja2 import TemplateError, pass_context
from jinja2.filters import FILTERS
from jinja2.runtime import Context

from layerguard.runtime.text.rendering_budget import Budget, check_number, check_percent_format

BUDGET = "layerguard_budget"
"""Name of the template variable that holds the budget."""

LISTENER = "layerguard_listener"
"""Name of the template variable that holds the function to call for each item of a loop."""

_LEFT_OUT = frozenset(
    {"batch", "center", "filesizeformat", "pprint", "random", "slice", "striptags", "urlencode",
     "urlize", "wordwrap", "xmlattr"}
)  # fmt: skip

_READING = frozenset(
    {"dictsort", "e", "escape", "forceescape", "format", "groupby", "indent", "join", "list", "max",
     "min", "replace", "reverse", "sort", "string", "sum", "tojson", "unique"}
)  # fmt: skip
"""Filters that read all values inside their argument."""

_MAX_INDENT = 16

_TO_ESCAPE = re.compile("[^\x00-\x7e\ue000\ue001]+")
"""The characters that ``tojson(ensure_ascii=true)`` escapes. Two private-use characters are kept,
because ``template.py`` uses them as placeholders."""


def bounded_filters() -> dict[str, Callable[..., Any]]:
    """The filters of chat templates, by name."""
    filters = {name: function for name, function in FILTERS.items() if name not in _LEFT_OUT}
    filters["tojson"] = _to_json
    return {name: _bounded(name, function) for name, function in filters.items()}


def budget_of(context: Context) -> Budget:
    """The budget of the rendering that a filter or call belongs to."""
    budget: Budget = context[BUDGET]
    return budget


@pass_context
def counted(context: Context, items: Iterable[Any]) -> Iterator[Any]:
    """The items of a loop, each counted as a step."""
    budget = budget_of(context)
    for item in items:
        budget.step()
        yield item


@pass_context
def spelled(context: Context, value: Any) -> str:
    """A value as text, counted before it is written."""
    budget = budget_of(context)
    if not isinstance(value, str):
        budget.need_spelled(value)
        value = str(value)
    text: str = budget.spend(value)
    return text


@pass_context
def turn_started(context: Context, item: Any) -> None:
    """Tell the caller of a rendering that the body of a loop begins, and for which item."""
    listener = context.get(LISTENER)
    if listener is not None:
        listener(item)


def _bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    passed = getattr(getattr(function, "jinja_pass_arg", None), "name", "")
    check = _CHECKS.get(name)

    @wraps(function)
    def bounded(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        budget = budget_of(context)
        budget.step()
        if name in _READING:
            value = list(counted(context, value)) if isinstance(value, Iterator) else value
            budget.need_spelled(value)
        if check is not None:
            check(budget, value, *args, **kwargs)
        first = {
            "context": context,
            "eval_context": context.eval_ctx,
            "environment": context.environment,
        }
        before = (first[passed],) if passed else ()
        return budget.spend(function(*before, value, *args, **kwargs))

    return pass_context(bounded)


def _check_format(budget: Budget, value: Any, *args: Any, **kwargs: Any) -> None:
    check_percent_format(str(value))
    budget.need_spelled([value, *args, *kwargs.values()])


def _check_indent(budget: Budget, value: Any, width: int | str = 4, *_: Any, **__: Any) -> None:
    check_number(width)
    text = str(value)
    columns = width if isinstance(width, int) else len(width)
    budget.need(len(text) + (text.count("\n") + 1) * columns)


def _check_join(budget: Budget, value: Any, d: Any = "", *_: Any, **__: Any) -> None:
    budget.need(len(value) * len(str(d)))


def _check_replace(budget: Budget, value: Any, old: Any, new: Any, *_: Any, **__: Any) -> None:
    text = str(value)
    budget.need(len(text) + text.count(str(old)) * len(str(new)))


def _check_round(_: Budget, __: Any, precision: int = 0, *___: Any, **____: Any) -> None:
    check_number(precision)


def _check_sum(_: Budget, __: Any, attribute: Any = None, start: Any = 0) -> None:  # noqa: ARG001
    if not isinstance(start, (int, float)):
        raise TemplateError(f"sum: found a start of type {type(start).__name__}; expected a number")


def _check_tojson(
    _: Budget,
    __: Any,
    ensure_ascii: Any = False,  # noqa: ARG001
    indent: Any = None,
    separators: Any = (),
    **___: Any,
) -> None:
    for part in (indent, *(separators or ())):
        size = len(part) if isinstance(part, str) else part or 0
        if size > _MAX_INDENT:
            raise TemplateError(
                f"tojson: found an indent of {size}; expected at most {_MAX_INDENT}"
            )


_CHECKS: Mapping[str, Callable[..., None]] = {
    "format": _check_format,
    "indent": _check_indent,
    "join": _check_join,
    "replace": _check_replace,
    "round": _check_round,
    "sum": _check_sum,
    "tojson": _check_tojson,
}
"""What is measured before a filter runs, by its name."""


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
