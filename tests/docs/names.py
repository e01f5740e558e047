"""Checks Python of the documentation without running it.

Imports must resolve. Attributes and keyword arguments must exist wherever the annotations of the
library say what a value is: ``guard = Guard.load(...)`` makes ``guard.chekc`` an error.
"""

import ast
import importlib
import inspect
import re
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

_ABSENT = ("agents", "fastapi", "guardrails", "langchain", "pydantic_ai", "ray", "tritonclient")
"""Frameworks that ``make integrations`` and ``make ray`` alone install; they run the examples that
use them. And Triton's client."""


@dataclass(frozen=True, slots=True)
class Value:
    """What is known of an expression: the object itself, or the type of an instance.

    Attributes:
        of: the object, or the type.
        is_type: whether ``of`` is the type of an instance.
        owner: the class that a method was taken from, for ``Self``.
    """

    of: Any
    is_type: bool = False
    owner: Any = None


class Checker(ast.NodeVisitor):
    """Reads the blocks of one page in order; names carry over from block to block.

    Attributes:
        faults: what is wrong, a sentence each.
    """

    def __init__(self) -> None:
        self.faults: list[str] = []
        self._names: dict[str, Value | None] = {}

    def read(self, source: str) -> None:
        """Check one block.

        Raises:
            SyntaxError: it is not Python.
        """
        self.visit(ast.parse(source))

    def visit_Import(self, node: ast.Import) -> None:
        """Import the modules."""
        for alias in node.names:
            module = self._module(alias.name)
            if module is not None:
                root = module if alias.asname else importlib.import_module(alias.name.split(".")[0])
                self._names[alias.asname or alias.name.split(".")[0]] = Value(root)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """Import the names."""
        module = self._module(node.module or "")
        for alias in node.names if module is not None else ():
            self._names[alias.asname or alias.name] = self._imported(module, alias.name)

    def _imported(self, module: Any, name: str) -> Value | None:
        try:
            if not hasattr(module, name):
                self._module(f"{module.__name__}.{name}")
            found = getattr(module, name, None)
        except ImportError:  # the module has the name, which needs a framework
            return None
        return None if found is None else Value(found)

    def visit_Assign(self, node: ast.Assign) -> None:
        """Note what the names hold."""
        value = self._infer(node.value)
        for target in node.targets:
            self._bind(target, value)

    def visit_For(self, node: ast.For) -> None:
        """The loop variable is an element."""
        self._bind(node.target, _element(self._infer(node.iter)))
        for child in node.body:
            self.visit(child)

    def visit_With(self, node: ast.With) -> None:
        """The name is what ``__enter__`` gives."""
        for item in node.items:
            value = self._infer(item.context_expr)
            entered = self._attribute(value, "__enter__") if value and value.is_type else None
            if item.optional_vars is not None:
                self._bind(item.optional_vars, _returned(entered))
        for child in node.body:
            self.visit(child)

    def generic_visit(self, node: ast.AST) -> None:
        """Infer expressions; visit statements."""
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self._infer(child)
            else:
                self.visit(child)

    def _module(self, name: str) -> Any:
        try:
            return importlib.import_module(name)
        except ImportError as error:
            if name.partition(".")[0] not in _ABSENT and not _is_adapter(name):
                self.faults.append(f"import {name}: {error}")
            return None

    def _bind(self, target: ast.expr, value: Value | None) -> None:
        if isinstance(target, ast.Name):
            self._names[target.id] = value
        else:
            self.generic_visit(target)

    def _infer(self, node: ast.expr) -> Value | None:
        if isinstance(node, ast.Name):
            return self._names.get(node.id)
        if isinstance(node, ast.Attribute):
            return self._attribute(self._infer(node.value), node.attr)
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, ast.Subscript):
            self._infer(node.slice)
            return _element(self._infer(node.value), subscript=True)
        self.generic_visit(node)
        return None

    def _attribute(self, value: Value | None, name: str) -> Value | None:
        if value is None:
            return None
        if not value.is_type:
            if hasattr(value.of, name):
                owner = value.of if inspect.isclass(value.of) else None
                return Value(getattr(value.of, name), owner=owner)
            self.faults.append(f"{value.of!r} has no {name}")
            return None
        kind = typing.get_origin(value.of) or value.of
        if not inspect.isclass(kind):
            return None
        hints = {**_hints(kind.__init__), **_hints(kind)}
        static = inspect.getattr_static(kind, name, None)
        if isinstance(static, property):
            return _instance(_hints(static.fget).get("return"), kind)
        if callable(static):
            return Value(static, owner=kind)
        if name in hints and (static is not None or _assigned(kind, name)):
            return _instance(hints[name], kind)
        if static is None and not _assigned(kind, name):
            self.faults.append(f"{kind.__name__} has no {name}")
        return None

    def _call(self, node: ast.Call) -> Value | None:
        function = self._infer(node.func)
        for argument in [*node.args, *(keyword.value for keyword in node.keywords)]:
            self._infer(argument)
        if function is None or function.is_type or not callable(function.of):
            return None
        named = [keyword.arg for keyword in node.keywords if keyword.arg]
        self.faults += [
            f"{ast.unparse(node.func)} takes no argument {name}"
            for name in named
            if not _takes(function.of, name)
        ]
        return _returned(function)


def _is_adapter(name: str) -> bool:
    """Whether it is a module of ours that needs such a framework."""
    ours = name.startswith(("layerguard.integrations.", "layerguard.scale."))
    return ours and find_spec(name) is not None


def _takes(function: Callable[..., Any], name: str) -> bool:
    try:
        parameters = inspect.signature(function).parameters
    except (ValueError, TypeError):
        return True
    kinds = {parameter.kind for parameter in parameters.values()}
    return name in parameters or inspect.Parameter.VAR_KEYWORD in kinds


def _returned(function: Value | None) -> Value | None:
    if function is None:
        return None
    if inspect.isclass(function.of):
        return Value(function.of, is_type=True)
    return _instance(_hints(function.of).get("return"), function.owner)


def _instance(hint: Any, owner: Any) -> Value | None:
    if hint is typing.Self:
        hint = owner
    return None if hint is None or hint is Any else Value(hint, is_type=True)


def _element(value: Value | None, *, subscript: bool = False) -> Value | None:
    """What iterating gives, or of a mapping what a subscript gives."""
    arguments = typing.get_args(value.of) if value is not None and value.is_type else ()
    mapping = len(arguments) == 2
    if not arguments or (mapping and not subscript):
        return None
    return _instance(arguments[-1 if mapping else 0], None)


def _hints(of: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(getattr(of, "__func__", of))
    except (NameError, TypeError, AttributeError):
        return {}


def _assigned(kind: type, name: str) -> bool:
    """Whether a method sets ``self.name``, or a dataclass declares it."""
    return any(
        re.search(rf"\bself\.{name}\b|^ +{name}:", text, re.MULTILINE) for text in _sources(kind)
    )


def _sources(kind: type) -> Iterator[str]:
    for base in kind.__mro__:
        try:
            yield inspect.getsource(base)
        except (OSError, TypeError):
            continue
