"""Texts as fields of a tool's result: JSON, or a Python object as it is printed."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from layerguard.calibration.rows.made_up import FIELDS, Rng, number, one, topic
from layerguard.calibration.rows.marked import Marked, sentences

Tree = Any
"""A JSON value; ``_HERE`` stands for the text with the marked passage."""

_HERE = object()


@dataclass(frozen=True, slots=True)
class _Notation:
    """How a tree is written.

    Attributes:
        write: the tree as a text.
        inner: a part of a string as it is written inside the whole string, without quotes.
    """

    write: Callable[[Tree], str]
    inner: Callable[[str, str], str]


def _json(**options: Any) -> _Notation:
    def write(tree: Tree) -> str:
        return json.dumps(tree, ensure_ascii=False, **options)

    return _Notation(write, lambda part, _: write(part)[1:-1])


def _python_inner(part: str, whole: str) -> str:
    """Python chooses the quotes by the whole string; the other quotes choose the same again."""
    other = '"' if repr(whole)[0] == "'" else "'"
    return repr(part + other)[1:-2]


_NOTATIONS = (
    _json(),
    _json(indent=2),
    _json(separators=(",", ":")),
    _Notation(repr, _python_inner),
)

_TEXT_KEYS = ("text", "content", "body", "description", "message", "comment", "summary", "notes",
              "snippet", "review", "details", "abstract")  # fmt: skip
_ENVELOPES: Sequence[Callable[[Tree, Rng], Tree]] = (
    lambda tree, _: tree,
    lambda tree, _: {"status": "ok", "data": tree},
    lambda tree, _: {"result": tree, "error": None},
    lambda tree, rng: {"tool": f"get_{topic(rng)}", "output": tree},
    lambda tree, rng: {"request_id": rng.bytes(4).hex(), "response": {"code": 200, "body": tree}},
)


def record(marked: Marked, rng: Rng) -> Marked:
    """One object; the passage is in its text, or is a text field of its own."""
    main, other = (_TEXT_KEYS[i] for i in rng.permutation(len(_TEXT_KEYS))[:2].tolist())
    apart = bool(rng.integers(2)) and bool(marked.rest)
    texts = {main: marked.rest, other: _HERE} if apart else {main: _HERE}
    here = Marked("", marked.words, "") if apart else marked
    return _written(_object(_keys([*texts], 7, rng), texts, rng), here, rng)


def records(marked: Marked, rng: Rng) -> Marked:
    """A list of objects with some sentences each; the passage is in one of them, or is one."""
    before, here, after = _near(marked, rng)
    size = -(-(len(before) + len(after)) // number(rng, 2, 6)) or 1
    key = one(_TEXT_KEYS, rng)
    keys = _keys([key], 4, rng)
    texts = [*_chunks(before, size), _HERE, *_chunks(after, size)]
    return _written([_object(keys, {key: text}, rng) for text in texts], here, rng)


def excerpt(marked: Marked, rng: Rng) -> Marked:
    """One object with the passage, alone or between two sentences; the rest is left out."""
    key = one(_TEXT_KEYS, rng)
    keys = _keys([key], 6, rng)
    return _written(_object(keys, {key: _HERE}, rng), _near(marked, rng)[1], rng)


def _near(marked: Marked, rng: Rng) -> tuple[list[str], Marked, list[str]]:
    """The passage, alone or between its neighbours, and the other sentences before and after it."""
    before, after = sentences(marked.before), sentences(marked.after)
    if rng.integers(2):
        return before, Marked("", marked.words, ""), after
    last, first = before[-1:], after[:1]
    here = Marked("".join(f"{text} " for text in last), marked.words,
                  "".join(f" {text}" for text in first))  # fmt: skip
    return before[:-1], here, after[1:]


def _written(tree: Tree, here: Marked, rng: Rng) -> Marked:
    """The tree in an envelope, in one of the notations, with the passage where it now stands."""
    tree = one(_ENVELOPES, rng)(tree, rng)
    notation = one(_NOTATIONS, rng)
    text = notation.write(_filled(tree, here.text))
    # two trees that differ in this string alone differ first at its first character
    pairs = zip(*(notation.write(_filled(tree, letter)) for letter in "ab"), strict=True)
    start = next(place for place, (a, b) in enumerate(pairs) if a != b)
    start += len(notation.inner(here.before, here.text))
    end = start + len(notation.inner(here.words, here.text))
    return Marked(text[:start], text[start:end], text[end:])


def _filled(tree: Tree, text: str) -> Tree:
    """The tree with a text in place of ``_HERE``."""
    if isinstance(tree, dict):
        return {key: _filled(value, text) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_filled(value, text) for value in tree]
    return text if tree is _HERE else tree


def _keys(texts: Sequence[str], most: int, rng: Rng) -> list[str]:
    """The keys of an object in random order: those of its texts, and at most so many others."""
    fields = list(FIELDS)
    some = [fields[i] for i in rng.permutation(len(fields))[: number(rng, 1, most + 1)].tolist()]
    keys = [*some, *texts]
    return [keys[i] for i in rng.permutation(len(keys)).tolist()]


def _object(keys: Sequence[str], texts: Mapping[str, Tree], rng: Rng) -> dict[str, Tree]:
    return {key: texts[key] if key in texts else FIELDS[key](rng) for key in keys}


def _chunks(parts: Sequence[str], size: int) -> list[str]:
    return [" ".join(parts[i : i + size]) for i in range(0, len(parts), size)]
